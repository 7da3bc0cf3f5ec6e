"""Sources: every kind of file gives the same rows, damage is named with its place, and nothing is read whole."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest

from data_registry.core.errors import ConfigError, InputError
from data_registry.sources.base import Broken
from data_registry.sources.opening import Location, open_source
from data_registry.sources.text import json_chunks
from tests.data_registry.small_sources import (
    ROWS,
    jsonl_bytes,
    location,
    read,
    write_arrow,
    write_bytes,
    write_gz,
    write_jsonl,
    write_parquet,
    write_repository,
    write_saved,
    write_text,
)


def write_csv(path: Path, delimiter=",", bom="") -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(bom)
        writer = csv.DictWriter(stream, ["question", "answer"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def write_saved_splits(path: Path) -> Path:
    import datasets

    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:3])}
    datasets.DatasetDict(splits).save_to_disk(path)
    return path


def write_folder(path: Path) -> Path:
    path.mkdir()
    write_jsonl(path / "part-0.jsonl", ROWS[:1000])
    write_jsonl(path / "part-1.jsonl", ROWS[1000:])
    write_text(path / "README.md", "about")
    write_text(path / ".hidden.jsonl", "{}")
    return path


KINDS = {
    "jsonl": lambda path: write_jsonl(path / "a.jsonl"),
    "jsonl without a last line break": lambda path: write_bytes(path / "a.jsonl", jsonl_bytes()[:-1]),
    "jsonl with BOM, blank lines and CRLF": lambda path: write_bytes(
        path / "a.jsonl", b"\xef\xbb\xbf" + jsonl_bytes().replace(b"\n", b"\r\n\r\n")
    ),
    "json array": lambda path: write_text(path / "a.json", json.dumps(ROWS, ensure_ascii=False)),
    "indented json array": lambda path: write_text(path / "a.json", " " + json.dumps(ROWS, indent=4) + "\n"),
    "json array called jsonl": lambda path: write_text(path / "a.jsonl", json.dumps(ROWS)),
    "json lines called json": lambda path: write_jsonl(path / "a.json"),
    "indented objects one after another": lambda path: write_text(
        path / "a.json", "\n".join(json.dumps(row, indent=1) for row in ROWS)
    ),
    "jsonl.gz": lambda path: write_gz(path / "a.jsonl.gz", jsonl_bytes()),
    "gz without another suffix": lambda path: write_gz(path / "a.gz", jsonl_bytes()),
    "gz that is not called so": lambda path: write_gz(path / "a.jsonl", jsonl_bytes()),
    "json.gz": lambda path: write_gz(path / "a.json.gz", json.dumps(ROWS).encode()),
    "csv": lambda path: write_csv(path / "a.csv"),
    "csv with BOM": lambda path: write_csv(path / "a.csv", bom="\ufeff"),
    "tsv": lambda path: write_csv(path / "a.tsv", "\t"),
    "csv.gz": lambda path: write_gz(path / "a.csv.gz", write_csv(path / "b.csv").read_bytes()),
    "parquet": lambda path: write_parquet(path / "a.parquet"),
    "arrow stream": lambda path: write_arrow(path / "a.arrow", pa.ipc.new_stream),
    "arrow file": lambda path: write_arrow(path / "a.arrow", pa.ipc.new_file),
    "save_to_disk folder": lambda path: write_saved(path / "saved"),
    "folder of files": lambda path: write_folder(path / "folder"),
}


@pytest.mark.parametrize("write", KINDS.values(), ids=KINDS)
def test_every_kind_of_source_gives_the_same_rows(tmp_path, write):
    path = write(tmp_path)
    assert read(location(path)) == ROWS
    (record,) = open_source(location(path)).inputs()
    assert record.path == str(path)
    assert len(record.fingerprint) == 64


def test_rows_are_numbered_by_line_or_row(tmp_path):
    path = write_text(tmp_path / "a.jsonl", '{"a": 1}\n\n[1]\nnot json\n{"a": 2}\n')
    (chunk,) = open_source(location(path)).chunks()
    numbers = dict(chunk.entries())
    assert list(numbers) == [1, 3, 4, 5]
    assert isinstance(numbers[3], Broken)
    assert isinstance(numbers[4], Broken)
    assert chunk.place(4) == f"{path}:4"
    path = write_text(tmp_path / "a.csv", 'a,b\n"1\n2",3\n4\n5,6\n')
    (chunk,) = open_source(location(path)).chunks()
    numbers = dict(chunk.entries())
    assert numbers[2] == {"a": "1\n2", "b": "3"}
    assert isinstance(numbers[4], Broken)
    assert numbers[5] == {"a": "5", "b": "6"}
    (chunk,) = open_source(location(write_text(tmp_path / "a.json", '[{"a": 1}, 2]'))).chunks()
    assert [chunk.place(number) for number, _ in chunk.entries()] == [f"{chunk.where}, row 1", f"{chunk.where}, row 2"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "json array", "save_to_disk folder"])
def test_numbers_run_through_all_chunks(tmp_path, kind):
    chunks = list(open_source(location(KINDS[kind](tmp_path))).chunks())
    numbers = [number for chunk in chunks for number, _ in chunk.entries()]
    assert len(chunks) > 2
    if kind == "csv":  # a header, and two lines a row
        assert numbers == list(range(2, 2 * len(ROWS) + 1, 2))
    else:
        assert numbers == list(range(1, len(ROWS) + 1))


def test_json_array_is_cut_anywhere_by_the_buffer(tmp_path, monkeypatch):
    rows = [
        {"a": ["\\", '"', "é\u2028🦜", 1.5e-7, True, None, {"b": {}}], "c" * i: "d" * (i * 7 % 50)} for i in range(60)
    ]
    path = write_text(tmp_path / "a.json", json.dumps(rows, indent=1))
    for size in (1, 2, 3, 5, 7, 64, 1000):
        monkeypatch.setattr("data_registry.sources.text.CHUNK_BYTES", size)
        assert [entry for chunk in json_chunks(path) for _, entry in chunk.entries()] == rows


# Splits


def test_splits_of_a_folder_are_told_by_file_names(tmp_path):
    write_jsonl(tmp_path / "train-00000-of-00002.jsonl", ROWS[:5])
    write_jsonl(tmp_path / "train-00001-of-00002.jsonl", ROWS[5:9])
    write_jsonl(tmp_path / "test.jsonl", ROWS[9:11])
    (tmp_path / "validation").mkdir()
    write_jsonl(tmp_path / "validation" / "a.jsonl", ROWS[11:12])
    assert read(location(tmp_path, split="train")) == ROWS[:9]
    assert read(location(tmp_path, split="test")) == ROWS[9:11]
    assert read(location(tmp_path, split="dev")) == ROWS[11:12]
    with pytest.raises(ConfigError, match="test, train, validation") as caught:
        read(location(tmp_path))
    assert "--source-split" in caught.value.fix
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        read(location(tmp_path, split="tran"))


def test_splits_of_a_saved_folder(tmp_path):
    path = write_saved_splits(tmp_path / "s")
    assert read(location(path, split="test")) == ROWS[:3]
    with pytest.raises(ConfigError, match="train, test"):
        read(location(path))
    with pytest.raises(ConfigError, match="no splits"):
        read(location(write_saved(tmp_path / "t"), split="train"))


def test_local_repository_is_read_like_one_of_the_hub(tmp_path):
    path = write_repository(tmp_path / "r")
    assert read(location(path, subset="main", split="train")) == ROWS
    assert read(location(path, subset="small")) == ROWS[:3]
    with pytest.raises(InputError, match="nosuch"):
        read(location(path, subset="nosuch"))


def test_hub_without_a_network_is_one_clear_error(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="neither the hub can be reached nor has its cache a copy") as caught:
        open_source(Location("hub", "someone/something"))
    assert "hf download" in caught.value.fix


def test_hub_id_of_wrong_form_is_refused():
    with pytest.raises(InputError, match="cannot be an id on the hub"):
        open_source(Location("hub", "a/b/c/d"))


def test_fingerprint_follows_content_not_place(tmp_path):
    def fingerprint(path: Path) -> str:
        return open_source(location(path)).inputs()[0].fingerprint

    first, second = write_folder(tmp_path / "one"), write_folder(tmp_path / "two")
    assert fingerprint(first) == fingerprint(second)
    write_text(second / "README.md", "changed, but no data")
    assert fingerprint(first) == fingerprint(second)
    write_jsonl(second / "part-1.jsonl", ROWS[1001:])
    assert fingerprint(first) != fingerprint(second)


def test_sample_is_the_first_readable_rows(tmp_path):
    path = write_text(tmp_path / "a.jsonl", "broken\n" + "".join(json.dumps(row) + "\n" for row in ROWS))
    assert open_source(location(path)).sample(3) == ROWS[:3]


# The hub, as far as it can be tried without one; tests/cli/test_hub.py has a small one


def test_data_of_another_commit_than_was_asked_for_is_refused(tmp_path, monkeypatch):
    import datasets.config

    from data_registry.sources import hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "_fetched", lambda wanted, *_: Path("c" * 40))
    repository = str(write_repository(tmp_path / "r"))
    with monkeypatch.context() as patched:
        patched.setattr(hub.Path, "is_dir", lambda path: False)  # so that it is taken for a repository's name
        source = hub.HubSource(repository, subset="main", revision="v1")
    (record,) = source.inputs()
    assert (record.kind, record.fingerprint) == ("hub", "c" * 40)
    with pytest.raises(InputError, match=f"the cache has '.*' of commit .*, not of {'c' * 40}") as caught:
        list(source.chunks())
    assert "hf download --repo-type dataset" in caught.value.fix


def test_commit_of_a_cached_repository_is_known_without_a_network(tmp_path, monkeypatch):
    import huggingface_hub.constants

    cached = tmp_path / "datasets--someone--something"
    (cached / "refs").mkdir(parents=True)
    (cached / "snapshots" / ("c" * 40)).mkdir(parents=True)
    write_text(cached / "refs" / "main", "c" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    (record,) = open_source(Location("hub", "someone/something")).inputs()
    assert record.fingerprint == "c" * 40
