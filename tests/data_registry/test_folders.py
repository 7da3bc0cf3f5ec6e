"""A local folder is read from that folder alone, a file only if it ends, and both only while nobody writes to them."""

import os
import socket
from pathlib import Path

import pytest

from data_registry.core.errors import ArtifactError, ConfigError, InputError
from data_registry.sources.opening import open_source
from tests.data_registry.small_sources import (
    ROWS,
    jsonl_bytes,
    location,
    read,
    write_bytes,
    write_jsonl,
    write_saved,
    write_text,
)


def repository(folder: Path, data_files: str, more: str = "") -> Path:
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", ROWS[:3])
    write_text(folder / "README.md", f"---\nconfigs:\n- config_name: default\n  data_files: {data_files}\n{more}---\n")
    return folder


@pytest.mark.parametrize(
    "outside",
    ["http://127.0.0.1:9/x.jsonl", "hf://datasets/a/b", "file:///etc/passwd", "zip://a.jsonl::b.zip", "../o.jsonl",
     "b/../../o.jsonl", "{place}/o.jsonl", "[a.jsonl, ../o.jsonl]", "[{{split: train, path: ../o.jsonl}}]",
     "../*.jsonl", "link.jsonl"],
)  # fmt: skip
def test_a_card_does_not_lead_out_of_its_folder(tmp_path, monkeypatch, outside):
    monkeypatch.setattr(socket, "socket", None)  # nothing is asked of any host
    write_jsonl(tmp_path / "o.jsonl")
    folder = repository(tmp_path / "r", outside.format(place=tmp_path))
    (folder / "link.jsonl").symlink_to(tmp_path / "o.jsonl")
    with pytest.raises(InputError, match="from that folder alone"):
        read(location(folder))


@pytest.mark.parametrize(
    "inside",
    ["a.jsonl", "'*.jsonl'", "'**/*.jsonl'", "[a.jsonl]", "{train: a.jsonl}", "[{split: x, path: ['a*']}]", "null"],
)
def test_a_card_chooses_among_the_files_of_its_folder(tmp_path, inside):
    assert read(location(repository(tmp_path / "r", inside))) == ROWS[:3]


def test_what_a_card_asks_for_is_done_or_refused(tmp_path):
    with pytest.raises(ConfigError, match="asks for 'sep'"):
        read(location(repository(tmp_path / "r", "a.jsonl", "  sep: ';'\n")))
    folder = repository(tmp_path / "s", "b.txt")
    write_text(folder / "b.txt", "x")
    with pytest.raises(InputError, match=r"'b.txt', which is of no kind"):
        read(location(folder))
    for index, nonsense in enumerate(("3", "[]", "{}", "{train: [3]}", "''")):
        with pytest.raises(ConfigError, match="data_files"):
            read(location(repository(tmp_path / f"n{index}", nonsense)))
    with pytest.raises(InputError, match=r"leads out|from that folder alone"):
        read(location(repository(tmp_path / "t", "a.jsonl", "  data_dir: ../\n")))


def test_the_fingerprint_is_of_the_files_that_are_read(tmp_path):
    folder = repository(tmp_path / "r", "a.jsonl")
    before = open_source(location(folder)).inputs()
    write_jsonl(folder / "a.jsonl", ROWS[:4])
    assert open_source(location(folder)).inputs() != before


def test_links_stay_within_a_folder(tmp_path, caplog):
    folder, outside = tmp_path / "f", write_jsonl(tmp_path / "o.jsonl")
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", ROWS[:2])
    (folder / "b.jsonl").symlink_to("a.jsonl")
    (folder / "elsewhere").symlink_to(tmp_path)
    assert read(location(folder)) == ROWS[:2] * 2
    assert "elsewhere' is a link to another folder" in caplog.text
    (folder / "c.jsonl").symlink_to(outside)
    with pytest.raises(InputError, match=r"c.jsonl' leads out of the folder"):
        read(location(folder))


def test_a_folder_of_the_hubs_cache_is_made_of_links(tmp_path):
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (tmp_path / "datasets--a--b" / "blobs").mkdir()
    blob = write_jsonl(tmp_path / "datasets--a--b" / "blobs" / "1", ROWS[:2])
    (snapshot / "a.jsonl").symlink_to(os.path.relpath(blob, snapshot))
    assert read(location(snapshot)) == ROWS[:2]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ('{"_data_files": [{"filename": "../o.arrow"}]}', "from that folder alone"),
        ('{"_data_files": [{"filename": "/etc/passwd"}]}', "from that folder alone"),
        ('{"_data_files": [{"filename": "http://a/b"}]}', "from that folder alone"),
        ('{"_data_files": [{"filename": 3}]}', "does not name its files"),
        ('{"_data_files": 3}', "does not name its files"),
        ('{"_data_files": []}', "names no files"),
        ('{"a":' * 5000, "damaged"),
        ("[]", "holds no object"),
    ],
)
def test_a_saved_folder_names_its_own_files(tmp_path, state, says):
    folder = write_saved(tmp_path / "s", ROWS[:3])
    write_text(folder / "state.json", state)
    with pytest.raises(InputError, match=says):
        read(location(folder))


# What has no end, or cannot be read twice


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def link_to_zero(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def bound_socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return path


@pytest.mark.parametrize("make", [pipe, link_to_zero, bound_socket])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "arrow", "jsonl.gz"])
@pytest.mark.parametrize("in_folder", [False, True])
def test_only_files_that_end_are_read(tmp_path, monkeypatch, make, suffix, in_folder):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    Path("f").mkdir()
    path = make(Path("f") / f"a.{suffix}")
    with pytest.raises(InputError, match=r"a named pipe|a device|a socket"):
        read(location(path.parent if in_folder else path))


def test_a_vast_file_of_nothing_is_refused_before_it_is_hashed(tmp_path):
    for suffix in ("jsonl", "csv", "parquet", "arrow"):
        path = tmp_path / f"a.{suffix}"
        with path.open("wb") as stream:
            stream.truncate(1 << 42)
        with pytest.raises(InputError, match=r"not UTF-8 text|is damaged"):
            open_source(location(path))


# What changes while it is read


@pytest.mark.parametrize("change", ["append", "cut", "replace", "remove"])
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_rows_and_fingerprint_are_of_one_file(tmp_path, change, suffix):
    data = jsonl_bytes() if suffix == "jsonl" else b"[" + jsonl_bytes().strip().replace(b"\n", b",") + b"]"
    path = write_bytes(tmp_path / f"a.{suffix}", data)
    source = open_source(location(path))
    source.inputs()
    chunks = source.chunks()
    next(chunks)
    if change == "append":
        path.write_bytes(data + b" ")
    elif change == "cut":
        os.truncate(path, len(data) // 2)
    elif change == "replace":
        os.replace(write_bytes(tmp_path / "other", data), path)
    else:
        path.unlink()
    with pytest.raises(ArtifactError, match="since this command began to read it") as caught:
        list(chunks)
    assert caught.value.exit_code == 3


def test_a_file_that_changes_between_its_fingerprint_and_its_rows_is_noticed(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS[:3])
    source = open_source(location(path))
    source.inputs()
    write_jsonl(path, ROWS[:2])
    with pytest.raises(ArtifactError, match="has changed"):
        list(source.chunks())
