"""Artifacts: whole or not there, never over something else, and every damage is found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from data_registry.core.errors import ArtifactError, InputError, NumericsError
from data_registry.core.manifest import (
    Manifest,
    as_input,
    fingerprint_of,
    hash_directory,
    read_manifest,
    verify,
)
from pipelines.core import claiming
from pipelines.core.artifact import find_finished, partial_path, write_artifact
from tests.core.small_artifacts import CONFIG, Sample, fill, make


def interrupt(target: Path, error: BaseException, *files: str, keep_partial: bool = False) -> None:
    with write_artifact(target, "run", CONFIG, [], keep_partial=keep_partial) as writer:
        (writer.path / "folder").mkdir(exist_ok=True)
        for name in files:
            (writer.path / name).write_text("some")
        raise error


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
from tests.core.small_artifacts import CONFIG, fill
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


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_permissions_that_the_umask_grants(umask: int, expected: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with write_artifact(tmp_path / "out", "dataset", Sample(), []) as writer:
            (writer.path / "weights").write_text("of the owner alone")
            (writer.path / "weights").chmod(0o600)
            (writer.path / "program").write_text("")
            (writer.path / "program").chmod(0o700)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"weights": expected, "program": expected | 0o100, "manifest.json": expected}


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
    monkeypatch.setattr(claiming, "PATIENCE_S", 0.3)
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
    with pytest.raises(ArtifactError):
        make(target, overwrite=overwrite)
    assert (target / "chapter.tex").read_text() == "years of work"
    assert left_behind(tmp_path) == []


def test_a_file_at_the_target_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(ArtifactError, match="will not be touched"):
        find(tmp_path / "out", overwrite=True)
    with pytest.raises(ArtifactError):
        make(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").read_text() == "x"


def test_a_failing_replacement_keeps_the_old_artifact(tmp_path: Path) -> None:
    target = tmp_path / "out"
    old = make(target)
    with pytest.raises(ValueError), write_artifact(target, "dataset", Sample(steps=2), [], overwrite=True):
        raise ValueError
    assert read_manifest(target) == old
    assert verify(target, old, hashes=True) == []
