"""Replacing a directory: at no moment is there neither the old one nor the new one, and nothing stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_registry.core.manifest import MANIFEST, is_artifact, read_manifest, verify
from pipelines.core import placing
from pipelines.core.artifact import partial_path, write_artifact
from pipelines.core.config import CommandConfig, option
from pipelines.core.placing import discard, put_in_place


class Sample(CommandConfig):
    steps: int = option(1, "Steps.")


def directory(path: Path, content: str) -> Path:
    path.mkdir()
    (path / MANIFEST).write_text(content)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchanged", "renamed twice"])
def can_exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "renamed twice":
        monkeypatch.setattr(placing, "exchange", lambda one, other: False)
    return request.param == "exchanged"


def test_what_was_replaced_is_removed(tmp_path: Path, can_exchange: bool) -> None:
    new, old = directory(tmp_path / "new", "new"), directory(tmp_path / "out", "old")
    put_in_place(new, old, replace=True)
    assert names(tmp_path) == ["out"]
    assert (old / MANIFEST).read_text() == "new"


def test_one_of_both_is_at_the_target_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    new, old = directory(tmp_path / "new", "new"), directory(tmp_path / "out", "old")
    seen = []
    rename, unlink = os.rename, Path.unlink

    def look_and_rename(*arguments: Path) -> None:
        rename(*arguments)
        seen.append(old.exists())

    monkeypatch.setattr(os, "rename", look_and_rename)
    monkeypatch.setattr(Path, "unlink", lambda path, **options: (seen.append(old.exists()), unlink(path, **options)))
    put_in_place(new, old, replace=True)
    # Where the file system cannot exchange, the old one is away for one moment: beside the target, and whole.
    assert seen == ([True, True] if can_exchange else [False, True, True])


def test_a_replacement_that_fails_leaves_the_old_one(tmp_path: Path, can_exchange: bool) -> None:
    old = directory(tmp_path / "out", "old")
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "missing", old, replace=True)
    assert names(tmp_path) == ["out"]
    assert (old / MANIFEST).read_text() == "old"


def test_leftovers_of_killed_processes_are_removed_and_others_are_not(tmp_path: Path) -> None:
    for name in (".out.replaced-1", ".other.replaced-1"):
        directory(tmp_path / name, "old")
    put_in_place(directory(tmp_path / "new", "new"), tmp_path / "out", replace=False)
    assert names(tmp_path) == [".other.replaced-1", "out"]


def test_what_is_half_removed_is_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed = directory(tmp_path / "out", "old")
    (doomed / "file").write_text("x")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    discard(doomed)
    assert not is_artifact(doomed)


def test_finished_work_is_not_mixed_into_what_goes_on(tmp_path: Path) -> None:
    """Killed after both have changed places: what was replaced lies where the next run goes on."""
    target, config = tmp_path / "out", Sample()
    aside = directory(partial_path(target, config), "{}")
    (aside / "stale").write_text("of what was replaced")
    (aside / ".checkpoints").mkdir()
    with write_artifact(target, "dataset", config, [], keep_partial=True) as writer:
        assert names(writer.path) == [".checkpoints"]
        (writer.path / "file").write_text("x")
    assert list(read_manifest(target).files) == ["file"]
    assert verify(target, read_manifest(target), hashes=True) == []
