"""The same rows in every kind of source."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_registry.sources.opening import Location, open_source

ROWS = [{"question": f"a {i}\n,\"é東🦜'", "answer": f"A {i}"} for i in range(2500)]


def write_jsonl(path: Path, rows=ROWS) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_gz(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data))
    return path


def jsonl_bytes() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=700)
    return path


def write_arrow(path: Path, opener) -> Path:
    table = pa.Table.from_pylist(ROWS)
    with opener(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


def write_saved(path: Path, rows=ROWS) -> Path:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


def write_repository(path: Path) -> Path:
    """A folder as hub repositories are: its card says which files are which split of which subset."""
    (path / "data").mkdir(parents=True)
    write_parquet(path / "data" / "a.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), path / "data" / "b.parquet")
    card = (
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: data/a.parquet\n"
        "- config_name: small\n  data_files:\n  - split: test\n    path: data/b.parquet\n---\nabout\n"
    )
    write_text(path / "README.md", card)
    return path


def location(path: Path, **kwargs) -> Location:
    return Location("local", str(path), **kwargs)


def read(where: Location) -> list:
    return [entry for chunk in open_source(where).chunks() for _, entry in chunk.entries()]
