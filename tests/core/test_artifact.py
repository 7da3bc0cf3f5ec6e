"""Artifacts: whole or not there, never over something else, and every damage is found."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_registry.core.errors import ArtifactError, InputError, NumericsError
from data_registry.core.manifest import (
    Manifest,
    as_input,
    fingerprint_of,
    hash_directory,
    open_artifact,
    read_manifest,
    verify,
)
from pipelines.core import artifact
from pipelines.core.artifact import ArtifactWriter, find_finished, partial_path, write_artifact
from pipelines.core.config import CommandConfig, option


class Sample(CommandConfig):
    """A command for tests."""

    out: Path = option(Path("out"), "Where.", runtime=True)
    steps: int = option(1, "A count.")


CONFIG = Sample()


def fill(writer: ArtifactWriter) -> None:
    (writer.path / "rows.bin").write_bytes(bytes(range(256)) * 40)
    (writer.path / "deep").mkdir()
    (writer.path / "deep" / "index.json").write_text("{}")
    writer.summary["rows"] = 40


def make(target: Path, config: Sample = CONFIG, **options: bool) -> Manifest:
    with write_artifact(target, "dataset", config, [], **options) as writer:
        fill(writer)
    return read_manifest(target)


def interrupt(target: Path, error: BaseException, *files: str, keep_partial: bool = False) -> None:
    with write_artifact(target, "run", CONFIG, [], keep_partial=keep_partial) as writer:
        (writer.path / "folder").mkdir(exist_ok=True)
        for name in files:
            (writer.path / name).write_text("some")
        raise error


def write_beyond_the_limit(target: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with write_artifact(target, "dataset", CONFIG, []) as writer:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            (writer.path / "big").write_bytes(bytes(100_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# --- Writing -----------------------------------------------------------------------------------------------------


def test_a_finished_artifact_has_files_manifest_and_fingerprint(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    manifest = make(target)
    assert list(manifest.files) == ["deep/index.json", "rows.bin"]
    assert manifest.fingerprint == fingerprint_of(hash_directory(target))
    assert manifest.summary == {"rows": 40}
    assert verify(target, manifest, hashes=True) == []
    assert left_behind(target.parent) == []


def test_nothing_is_at_the_target_while_writing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with write_artifact(target, "dataset", CONFIG, []) as writer:
        fill(writer)
        assert not target.exists()
        assert writer.path == partial_path(target, CONFIG)


@pytest.mark.parametrize("error", [ValueError("x"), NumericsError("NaN"), KeyboardInterrupt()])
def test_an_exception_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        interrupt(tmp_path / "out", error, "rows.bin")
    assert list(tmp_path.iterdir()) == []


def test_with_keep_partial_the_work_stays_for_the_next_run(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        interrupt(target, KeyboardInterrupt(), "checkpoint", keep_partial=True)
    with write_artifact(target, "run", CONFIG, [], keep_partial=True) as writer:
        assert (writer.path / "checkpoint").read_text() == "some"
    assert left_behind(tmp_path) == []


def test_with_keep_partial_an_empty_directory_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        interrupt(tmp_path / "out", ValueError(), keep_partial=True)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_are_not_mixed_in(tmp_path: Path) -> None:
    partial = partial_path(tmp_path / "out", CONFIG)
    (partial / "old").mkdir(parents=True)
    (partial / "old" / "shard").write_text("stale")
    assert list(make(tmp_path / "out").files) == ["deep/index.json", "rows.bin"]


WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.core.test_artifact import CONFIG, fill
from pipelines.core.artifact import write_artifact
with write_artifact(Path({target!r}), "dataset", CONFIG, []) as writer:
    fill(writer)
    print("writing", flush=True)
    {then}
print("done", flush=True)
"""


def start_writer(target: Path, then: str = "time.sleep(3600)") -> subprocess.Popen[str]:
    code = textwrap.dedent(WRITER).format(tests=str(Path(__file__).parents[2]), target=str(target), then=then)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    return child


def test_kill_9_leaves_no_artifact_and_the_command_can_be_repeated(tmp_path: Path) -> None:
    target = tmp_path / "out"
    child = start_writer(target)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not target.exists()
    assert left_behind(tmp_path)
    make(target)
    assert left_behind(tmp_path) == []


def test_two_processes_do_not_write_the_same_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "LOCK_PATIENCE_S", 0.3)
    target = tmp_path / "out"
    child = start_writer(target)
    try:
        with pytest.raises(InputError, match="another process is making"):
            make(target)
    finally:
        child.kill()
        child.wait()
    make(target)


def test_kill_9_at_any_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    outcomes = set()
    for delay in (0.0, 0.002, 0.004, 0.008, 0.016):
        target = tmp_path / f"out-{delay}"
        child = start_writer(target, then="pass")
        time.sleep(delay)
        child.kill()
        child.wait()
        if target.exists():
            assert verify(target, read_manifest(target), hashes=True) == []
        outcomes.add(target.exists())
        make(target, overwrite=True)
    assert outcomes


# --- Storage -----------------------------------------------------------------------------------------------------


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


# --- Finding what is there ---------------------------------------------------------------------------------------


def find(target: Path, config: Sample = CONFIG, *, overwrite: bool = False) -> Manifest | None:
    return find_finished(target, "dataset", config, [], overwrite=overwrite)


def test_the_same_command_is_up_to_date(tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert find(target) is None
    manifest = make(target)
    assert find(target) == manifest
    assert find(target, overwrite=True) is None


def test_an_empty_directory_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert find(tmp_path / "out") is None
    make(tmp_path / "out")


def test_another_configuration_is_not_overwritten_unasked(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    with pytest.raises(ArtifactError, match="made with other settings: steps"):
        find(target, Sample(steps=2))
    assert find(target, Sample(steps=2), overwrite=True) is None
    manifest = make(target, Sample(steps=2), overwrite=True)
    assert manifest.config["steps"] == 2
    assert left_behind(tmp_path) == []


def test_another_kind_or_input_is_another_artifact(tmp_path: Path) -> None:
    target = tmp_path / "out"
    manifest = make(target)
    with pytest.raises(ArtifactError, match="it is a dataset, not a basis"):
        find_finished(target, "basis", CONFIG, [], overwrite=False)
    with pytest.raises(ArtifactError, match="data"):
        find_finished(target, "dataset", CONFIG, [as_input("data", target, manifest)], overwrite=False)


def test_a_damaged_artifact_is_not_up_to_date(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    (target / "rows.bin").unlink()
    with pytest.raises(ArtifactError, match="files do not verify"):
        find(target)
    make(target, overwrite=True)
    assert find(target) is not None


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_directory_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match="will not be touched"):
        find(target, overwrite=overwrite)
    # Not even where a recipe forgets to ask.
    with pytest.raises(InputError):
        make(target, overwrite=overwrite)
    assert (target / "chapter.tex").read_text() == "years of work"
    assert left_behind(tmp_path) == []


def test_a_file_at_the_target_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(ArtifactError, match="will not be touched"):
        find(tmp_path / "out", overwrite=True)
    with pytest.raises(InputError):
        make(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").read_text() == "x"


def test_a_failing_replacement_keeps_the_old_artifact(tmp_path: Path) -> None:
    target = tmp_path / "out"
    old = make(target)
    with pytest.raises(ValueError), write_artifact(target, "dataset", Sample(steps=2), [], overwrite=True):
        raise ValueError
    assert read_manifest(target) == old
    assert verify(target, old, hashes=True) == []


# --- Verifying ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("artifacts") / "whole"
    make(target)
    return target


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_239), st.integers(0, 7))
def test_every_flipped_bit_is_found(whole: Path, position: int, bit: int) -> None:
    file = whole / "rows.bin"
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    original, manifest = file.read_bytes(), read_manifest(whole)
    file.write_bytes(content)
    try:
        assert verify(whole, manifest, hashes=True) == ["rows.bin was changed after it was written"]
        with pytest.raises(ArtifactError, match="does not verify"):
            open_artifact(whole, "dataset", hashes=True)
    finally:
        file.write_bytes(original)


def test_truncation_is_found_without_reading_contents(tmp_path: Path) -> None:
    target = tmp_path / "out"
    manifest = make(target)
    os.truncate(target / "rows.bin", 100)
    assert verify(target, manifest, hashes=False) == ["rows.bin has 100 bytes, not 10240"]
    with pytest.raises(ArtifactError, match="has 100 bytes, not 10240") as caught:
        open_artifact(target, "dataset")
    assert "--overwrite" in str(caught.value.fix)


def test_missing_files_and_edited_manifests_are_found(tmp_path: Path) -> None:
    target = tmp_path / "out"
    manifest = make(target)
    del manifest.files["rows.bin"]
    assert verify(target, manifest, hashes=True) == ["manifest.json was changed after it was written"]
    (target / "deep" / "index.json").unlink()
    assert verify(target, manifest, hashes=False) == ["deep/index.json is missing"]


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    raw = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({**raw, "schema_version": 99, "unheard_of": 1}))
    with pytest.raises(ArtifactError, match="newer ogpsa"):
        read_manifest(target)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b'{"kind": 3}', b"\xff\xfe", b"[" * 100_000, b'{"files": {"a": 1}}']
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        read_manifest(tmp_path)


def test_what_is_no_artifact_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_artifact(tmp_path / "nothing", "dataset")
    with pytest.raises(InputError, match="not an artifact"):
        open_artifact(tmp_path, "dataset")


def test_another_kind_is_refused(whole: Path) -> None:
    with pytest.raises(ArtifactError, match="is a dataset, where a basis or run is needed"):
        open_artifact(whole, ["basis", "run"])


def test_inputs_are_recorded_with_absolute_paths(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole.parent)
    record = as_input("data", Path("whole"), read_manifest(Path("whole")))
    assert record.path == str(whole)


def test_the_manifest_has_the_command_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "_recorded_command", None)
    artifact.record_command(["prepare-data", "a b"])
    assert make(tmp_path / "out").command == ["ogpsa", "prepare-data", "a b"]
