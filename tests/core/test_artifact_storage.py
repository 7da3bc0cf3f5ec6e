"""Artifacts and storage: full disks and places that cannot be written are clear errors."""

from __future__ import annotations

import errno
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from data_registry.core.errors import InputError
from pipelines.core import artifact
from pipelines.core.artifact import write_artifact
from tests.core.small_artifacts import CONFIG, make


def write_beyond_the_limit(target: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with write_artifact(target, "dataset", CONFIG, []) as writer:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            (writer.path / "big").write_bytes(bytes(100_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_limit_on_file_size_is_a_clear_error(tmp_path: Path) -> None:
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(InputError, match="file too large"):
            write_beyond_the_limit(tmp_path / "out")
    finally:
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> object:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs privileges")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_a_clear_error_and_frees_what_was_written(tiny_disk: Path) -> None:
    with (
        pytest.raises(InputError, match="no space left on device"),
        write_artifact(tiny_disk / "out", "dataset", CONFIG, []) as writer,
    ):
        (writer.path / "big").write_bytes(bytes(1_000_000))
    assert list(tiny_disk.iterdir()) == []


def test_a_disk_that_fills_up_with_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(artifact, "write_text_durably", full)
    with pytest.raises(InputError, match="no space left"):
        make(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class RustError(Exception):
    """As safetensors raises: no OSError."""


def test_a_full_disk_is_recognised_in_the_words_of_other_libraries(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no space left"), write_artifact(tmp_path / "out", "x", CONFIG, []):
        raise RustError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_errors_of_reading_are_not_taken_for_errors_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_artifact(tmp_path / "out", "x", CONFIG, []):
        (tmp_path / "input.txt").read_text()
    with pytest.raises(PermissionError), write_artifact(tmp_path / "out", "x", CONFIG, []):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input")


@pytest.mark.parametrize("place", ["/proc/ogpsa/out", "/dev/null/out"])
def test_an_unwritable_place_is_a_clear_error(place: str) -> None:
    with pytest.raises(InputError, match="cannot write to"):
        make(Path(place))


def test_a_file_in_the_way_of_the_parent_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write to"):
        make(tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "x"
