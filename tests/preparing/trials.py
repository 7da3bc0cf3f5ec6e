"""Rows in every kind of file, with columns spelled in several ways, damaged or whole; and what may come of them.

``python -m tests.preparing.trials FOLDER`` prepares every layout in every kind of file, spelling and damage, and prints
what went wrong.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_registry.core.errors import OgpsaError
from data_registry.prepared import load_prepared
from tests.preparing.published import LAYOUTS, Published, Row, rows_of
from tests.preparing.small_sources import prepare

_WORD = re.compile(r"(?:good|bad)\d+")


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _csv(rows: list[Row], delimiter: str = ",") -> str:
    sink = io.StringIO()
    table = csv.writer(sink, delimiter=delimiter)
    names = list(dict.fromkeys(name for row in rows for name in row))
    table.writerow(names)
    for row in rows:
        values = (row.get(name) for name in names)
        table.writerow([value if isinstance(value, str | float) else json.dumps(value) for value in values])
    return sink.getvalue()


def _parquet(rows: list[Row], as_bytes: bool = False) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    for index, name in enumerate(table.column_names if as_bytes else []):
        if pa.types.is_string(table.schema.field(name).type):
            table = table.set_column(index, name, table.column(name).cast(pa.binary()))
    pq.write_table(table, sink)
    return sink.getvalue()


def _arrow(rows: list[Row]) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


KINDS: dict[str, tuple[str, Callable[[list[Row]], str | bytes]]] = {
    "lines": ("rows.jsonl", _lines),
    "lines called json": ("rows.json", _lines),
    "array": ("rows.json", lambda rows: json.dumps(rows, indent=1)),
    "array called jsonl": ("rows.jsonl", json.dumps),
    "objects over lines": ("rows.json", lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows)),
    "csv": ("rows.csv", _csv),
    "semicolons": ("rows.csv", lambda rows: _csv(rows, ";")),
    "tabs called csv": ("rows.csv", lambda rows: _csv(rows, "\t")),
    "tsv": ("rows.tsv", lambda rows: _csv(rows, "\t")),
    "parquet": ("rows.parquet", _parquet),
    "parquet of bytes": ("rows.parquet", lambda rows: _parquet(rows, as_bytes=True)),
    "arrow": ("rows.arrow", _arrow),
    "gzip": ("rows.jsonl.gz", lambda rows: gzip.compress(_lines(rows).encode())),
    "xz": ("rows.json.xz", lambda rows: lzma.compress(json.dumps(rows).encode())),
    "mark of utf-8": ("rows.csv", lambda rows: "\ufeff" + _csv(rows)),
}

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda name: name,
    "capital": lambda name: name.capitalize(),
    "upper": str.upper,
    "padded": lambda name: f" {name} ",
}

DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut off": lambda data, rng: data[: rng.randrange(1, len(data))],
    "a byte changed": lambda data, rng: (
        data[: (at := rng.randrange(len(data)))] + bytes([rng.randrange(256)]) + data[at + 1 :]
    ),
    "a part twice": lambda data, rng: data[: (at := rng.randrange(len(data)))] + data[at // 2 :],
    "latin-1": lambda data, rng: data[: (at := rng.randrange(len(data)))] + b"\xe9\xe8" + data[at:],
    "utf-16": lambda data, rng: data.decode("utf-8", "replace").encode("utf-16"),
    "wrapped": lambda data, rng: b'{"data": ' + data + b"}",
    "trailing comma": lambda data, rng: data.rstrip(b"]\n \r") + b",]",
    "comment": lambda data, rng: b"// made by hand\n" + data,
}


def prepared(path: Path, out: Path, **options: Any) -> tuple[str, Mapping[str, Any], list[str], list[str], str]:
    """What came of a source: the error or the format, the summary, texts, answers that are learnt, rows left out."""
    try:
        made = prepare(path, out, **{"max_dropped": 0.9, **options})
    except OgpsaError as error:
        if error.exit_code not in (2, 3) or len(str(error)) > 5000 or out.exists():
            raise AssertionError(
                "another exit code, a message longer than a screen, or something half-written"
            ) from error
        return str(error), {}, [], [], ""
    rows, manifest = load_prepared(made.path)
    texts = [entry["content"] for row in rows for part in row.values() for entry in part]
    learnt = [row["messages"] if "messages" in row else row["chosen"] for row in rows]
    answers = [entry["content"] for part in learnt for entry in part if entry["role"] == "assistant"]
    left_out = (made.path / "rejected.jsonl").read_text()
    return str(manifest.summary["format"]), manifest.summary, texts, answers, left_out


def problems(rows: list[Row], outcome: tuple[str, Mapping[str, Any], list[str], list[str], str]) -> Iterator[str]:
    """What is wrong: a bad answer that is learnt, or a text of which nothing is said."""
    _, summary, texts, answers, left_out = outcome
    if not summary:
        return
    learnt = set(_WORD.findall(" ".join(answers)))
    for word in learnt:
        if word.startswith("bad"):
            yield f"{word} is learnt"
    kept = set(_WORD.findall(" ".join(texts))) | set(_WORD.findall(left_out))
    named = {re.sub(r"\W", "", name.lower()) for name in summary.get("unused_columns", {})}
    for row in rows:
        for name, value in row.items():
            lost = set(_WORD.findall(json.dumps(value))) - kept
            if lost and re.sub(r"\W", "", name.lower()) not in named:
                yield f"{', '.join(sorted(lost))} of '{name}' is gone, and no one says so"


def write(folder: Path, kind: str, rows: list[Row], spelling: str = "plain") -> Path:
    """A file of a kind with these rows, their columns spelled in a way."""
    name, writer = KINDS[kind]
    data = writer([{SPELLINGS[spelling](column): value for column, value in row.items()} for row in rows])
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def fits(layout: Published, outcome: tuple[str, Mapping[str, Any], list[str], list[str], str]) -> str:
    """What is unlike what the layout says of whole files; empty where nothing is."""
    said, summary, *_ = outcome
    if bool(summary) != bool(layout.read_as) or (summary and said.split(" ")[0] != layout.read_as):
        return f"expected {layout.read_as or 'a refusal'}, got: {said[:300]}"
    told = said if not summary else " ".join(summary.get("unused_columns", {}))
    missing = [name for name in layout.columns if name.lower() not in told.lower()]
    return f"{missing} not named: {told[:600]}" if missing else ""


def attempt(folder: Path, name: str, kind: str, spelling: str, damage: str, rng: random.Random) -> list[str]:
    """What is wrong with what comes of one file."""
    layout = LAYOUTS[name]
    rows = rows_of(layout)
    folder.mkdir(parents=True)
    try:
        path = write(folder, kind, rows, spelling)
        if damage:
            path.write_bytes(DAMAGES[damage](path.read_bytes(), rng))
            prepared(path, folder / "out")
            return []
        outcome = prepared(path, folder / "out", max_dropped=0.9 if layout.read_as else 0.05)
        return [*problems(rows, outcome), *filter(None, [fits(layout, outcome)])]
    except Exception:  # noqa: BLE001 - that nothing else is raised is what is asked
        return ["FAILED " + traceback.format_exc(limit=-3)]


def cases() -> list[tuple[str, str, str, str]]:
    """Every layout in every kind of file and spelling, and some kinds damaged in every way."""
    damaged = ("lines", "array", "csv", "parquet", "gzip")
    return [
        *((name, kind, spelling, "") for name in LAYOUTS for kind in KINDS for spelling in SPELLINGS),
        *((name, kind, "plain", damage) for name in LAYOUTS for kind in damaged for damage in DAMAGES),
    ]


def main() -> None:
    """Run all, or as many as the second argument says; exits with 1 if anything went wrong."""
    folder, rng = Path(sys.argv[1]), random.Random(0)
    chosen = cases() if len(sys.argv) < 3 else rng.sample(cases(), int(sys.argv[2]))
    wrong = 0
    for number, case in enumerate(chosen):
        for each in attempt(folder / str(number), *case, rng):
            wrong += 1
            print(" | ".join(case), "|", each, flush=True)
    print(len(chosen), "tried,", wrong, "wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
