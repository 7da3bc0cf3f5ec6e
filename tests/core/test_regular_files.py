"""What has no end or cannot be read twice is refused by whoever reads a file that a user names."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data_registry.core.documents import read_text
from data_registry.core.errors import ArtifactError, InputError
from data_registry.core.manifest import hash_file
from data_registry.core.regular_files import Watch, check_regular, open_regular
from data_registry.registry.listing import list_entries
from pipelines.core.config import read_config_file


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def link_to_a_pipe(path: Path) -> Path:
    path.symlink_to(pipe(path.with_name("pipe")))
    return path


def link_to_zero(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


READERS: list[Callable[[Path], object]] = [
    check_regular, open_regular, hash_file, read_config_file, list_entries, lambda path: read_text(path, "recipe")
]  # fmt: skip


@pytest.mark.parametrize("make", [pipe, link_to_a_pipe, link_to_zero])
@pytest.mark.parametrize("read", READERS)
def test_pipes_and_devices_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], read: Callable[[Path], object]
) -> None:
    with pytest.raises(Exception, match=r"is a named pipe|is a device") as caught:
        read(make(tmp_path / "a.json"))
    assert getattr(caught.value, "exit_code", None) == 2


def test_a_directory_is_named_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory, where a recipe is needed"):
        read_text(tmp_path, "recipe")


def test_who_waits_for_a_reader_of_a_refused_pipe_is_let_go(tmp_path: Path) -> None:
    path = pipe(tmp_path / "rows.jsonl")
    writer = threading.Thread(target=lambda: os.close(os.open(path, os.O_WRONLY)))
    writer.start()
    while writer.is_alive():
        with pytest.raises(InputError, match="named pipe"):
            check_regular(path)
        writer.join(0.01)


def test_a_document_has_a_greatest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_registry.core.documents.MAX_BYTES", 10)
    (tmp_path / "a").write_text("x" * 10)
    (tmp_path / "b").write_text("x" * 11)
    assert read_text(tmp_path / "a", "recipe") == "x" * 10
    with pytest.raises(InputError, match="and so no recipe"):
        read_text(tmp_path / "b", "recipe")


def test_a_watch_notices_changes_of_content_and_of_identity(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    other.write_text("one")
    watch = Watch([path])
    watch.check()
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(other, path)
    with pytest.raises(ArtifactError, match="has changed"):
        watch.check()
    path.unlink()
    with pytest.raises(ArtifactError, match="is gone"):
        watch.check()
