"""Sources that cannot be read: damage is named with its place, and nothing is read whole."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from data_registry.core.errors import InputError
from data_registry.sources.base import Broken
from data_registry.sources.opening import open_source
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


def damaged_gz(path: Path) -> Path:
    data = gzip.compress(os.urandom(5000).hex().encode())
    return write_bytes(path / "a.jsonl.gz", data[:-3000])


def flipped_gz(path: Path) -> Path:
    data = bytearray(gzip.compress(jsonl_bytes()))
    data[len(data) // 2] ^= 0xFF
    return write_bytes(path / "a.jsonl.gz", bytes(data))


def truncated(path: Path, size: int) -> Path:
    return write_bytes(path, path.read_bytes()[:size])


BAD = {
    "missing": (lambda path: path / "a.jsonl", "does not exist"),
    "missing with a similar one": (
        lambda path: write_jsonl(path / "data.jsonl").with_name("dat.jsonl"),
        "did you mean",
    ),
    "unknown kind": (lambda path: write_text(path / "a.txt", "hello"), "kinds are"),
    "unknown kind, zipped": (lambda path: write_gz(path / "a.parquet.gz", b"x"), "kinds are"),
    "empty folder": (lambda path: (path / "f").mkdir() or path / "f", "holds no data"),
    "cut gzip": (damaged_gz, "damaged or cut off"),
    "changed gzip": (flipped_gz, "damaged or cut off"),
    "a picture called jsonl": (lambda path: write_bytes(path / "a.jsonl", b"\x89PNG\r\n\x1a\n"), "is PNG"),
    "parquet called jsonl": (lambda path: write_parquet(path / "a.jsonl"), "is Parquet"),
    "utf-16": (lambda path: write_bytes(path / "a.jsonl", jsonl_bytes().decode().encode("utf-16")), "iconv"),
    "binary": (lambda path: write_bytes(path / "a.json", bytes(100)), "not UTF-8"),
    "cut array": (lambda path: write_text(path / "a.json", json.dumps(ROWS)[:-40]), "after 2499 whole rows"),
    "array cut after a comma": (lambda path: write_text(path / "a.json", '[{"a": 1},'), "cut off"),
    "array cut after a row": (lambda path: write_text(path / "a.json", '[{"a": 1}'), "after 1 whole rows"),
    "array without a comma": (lambda path: write_text(path / "a.json", '[{"a": 1}\n{"a": 2}]'), "comma"),
    "array with broken row": (lambda path: write_text(path / "a.json", '[{"a": 1},\n\n{a: 2}, {"a": 3}]'), "a.json:3"),
    "text after the array": (lambda path: write_text(path / "a.json", '[{"a": 1}]\n[]'), "after the end"),
    "latin-1 array": (lambda path: write_bytes(path / "a.json", '[{"a": "é"}]'.encode("latin-1")), "not UTF-8"),
    "unclosed quote in an array": (lambda path: write_text(path / "a.json", '[{"a": "b}, {"a": 1}]'), "a.json:1"),
    "deep nesting": (lambda path: write_text(path / "a.json", "[" + '{"a":' * 100_000), "nested too deeply"),
    "csv with a column twice": (lambda path: write_text(path / "a.csv", "a,a\n1,2\n"), "'a' twice"),
    "csv with an unclosed quote": (lambda path: write_text(path / "a.csv", 'a,b\n1,2\n"3,4\n5,6\n'), "a.csv:3"),
    "csv in latin-1": (lambda path: write_bytes(path / "a.csv", "a\né\n".encode("latin-1")), "not UTF-8"),
    "cut parquet": (lambda path: truncated(write_parquet(path / "a.parquet"), 500), "Parquet file is damaged"),
    "text called parquet": (lambda path: write_text(path / "a.parquet", "hello"), "Parquet file is damaged"),
    "cut arrow": (
        lambda path: truncated(write_arrow(path / "a.arrow", pa.ipc.new_stream), 700),
        "Arrow file is damaged",
    ),
    "text called arrow": (lambda path: write_text(path / "a.arrow", "hello there"), "Arrow file is damaged"),
    "saved folder without its rows": (
        lambda path: (write_saved(path / "s") / "data-00000-of-00001.arrow").unlink() or path / "s",
        "Arrow folder is damaged",
    ),
    "saved folder with a cut state": (
        lambda path: truncated(write_saved(path / "s") / "state.json", 20).parent,
        "damaged",
    ),
    "repository without a file that it names": (
        lambda path: (write_repository(path / "r") / "data" / "a.parquet").unlink() or path / "r",
        "names 'data/a.parquet', which is not there",
    ),
}


@pytest.mark.parametrize(("write", "text"), BAD.values(), ids=BAD)
def test_unreadable_sources_are_input_errors_with_a_place(tmp_path, write, text):
    path = write(tmp_path)
    where = location(path, subset="main" if path.name == "r" else None)
    with pytest.raises(InputError) as caught:
        read(where)
    assert text in str(caught.value)
    assert str(path.name) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    path.chmod(0)
    with pytest.raises(InputError, match="permission"):
        read(location(path))


def test_deeply_nested_line_is_one_broken_row(tmp_path):
    path = write_text(tmp_path / "a.jsonl", '{"a": 1}\n' + '{"a":' * 100_000 + "\n")
    assert [isinstance(entry, Broken) for entry in read(location(path))] == [False, True]


def test_endless_line_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("data_registry.sources.text._MAX_ROW_BYTES", 1000)
    path = write_text(tmp_path / "a.jsonl", '{"a": 1}\n{"a": "' + "b" * 2000)
    with pytest.raises(InputError, match="not one row a line") as caught:
        read(location(path))
    assert caught.value.where == f"{path}:2"
    path = write_text(tmp_path / "a.json", '[{"a": "' + "b" * (3 << 20))
    with pytest.raises(InputError, match="quote not closed"):
        read(location(path))


@pytest.mark.parametrize("kind", ["lines", "array"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    row = json.dumps({"question": "a" * 500, "answer": "b" * 1500})
    peaks = []
    for count in (2000, 20_000):
        path = tmp_path / f"{count}.json"
        separator = "\n" if kind == "lines" else ",\n"
        path.write_text(
            ("" if kind == "lines" else "[") + separator.join([row] * count) + ("" if kind == "lines" else "]")
        )
        tracemalloc.start()
        for chunk in open_source(location(path)).chunks():
            assert sum(1 for _ in chunk.entries()) <= 1000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert path.stat().st_size > 40e6
    assert peaks[1] < 1.3 * peaks[0] < 20e6
