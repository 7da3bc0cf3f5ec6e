"""What is left behind: found, told apart, and removed only where nobody uses it and nothing finished goes with it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from data_registry.core.errors import InputError
from data_registry.core.manifest import MANIFEST, is_artifact, read_manifest, verify
from pipelines.commands import clean
from pipelines.configs.tools import CleanConfig
from pipelines.core import leftovers
from pipelines.core.artifact import partial_path, write_artifact
from pipelines.core.aside import aside_of
from pipelines.core.leftovers import Leftover, leftover_at, leftovers_below, leftovers_of, remove
from tests.core.small_artifacts import CONFIG, Sample, fill, make


def unfinished(target: Path, steps: int = 1, content: str = "some") -> Path:
    """Work that a killed command left."""
    partial = partial_path(target, Sample(steps=steps))
    (partial / ".checkpoints" / "checkpoint-3").mkdir(parents=True)
    (partial / ".checkpoints" / "checkpoint-3" / "weights").write_text(content)
    return partial


def replaced(target: Path, number: int = 77) -> Path:
    """What a killed command had replaced and partly removed."""
    aside = aside_of(target, "replaced", str(number))
    aside.mkdir()
    (aside / "rows.bin").write_bytes(b"123456")
    return aside


def kinds(found: list[Leftover]) -> dict[str, str]:
    return {each.path.name: each.kind for each in found}


def test_everything_beside_an_artifact_is_found_with_its_size(tmp_path: Path) -> None:
    target = tmp_path / "out [1]"
    make(target)
    aside, old = unfinished(target), replaced(target)
    unfinished(tmp_path / "other")
    found = leftovers_of(target)
    assert kinds(found) == {aside.name: "unfinished", old.name: "superseded"}
    assert [each.size_bytes for each in found] == [4, 6]
    assert {each.place for each in found} == {target}


def test_the_checkpoints_in_a_finished_run_are_found_and_those_of_others_are_not(tmp_path: Path) -> None:
    make(tmp_path / "run")
    for name in ("run", "somebody"):
        (tmp_path / name / ".checkpoints").mkdir(parents=True)
        (tmp_path / name / ".checkpoints" / "x").write_text("1234567")
    (found,) = leftovers_below(tmp_path)
    assert (found.path, found.kind, found.size_bytes) == (tmp_path / "run" / ".checkpoints", "superseded", 7)
    assert remove(found)
    assert verify(tmp_path / "run", read_manifest(tmp_path / "run"), hashes=True) == []
    assert (tmp_path / "somebody" / ".checkpoints" / "x").exists()


def test_below_a_folder_all_are_found_and_links_are_not_followed(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "deep" / ".hidden").mkdir(parents=True)
    one, other = unfinished(runs / "a"), unfinished(runs / "deep" / "b", steps=2)
    unfinished(tmp_path / "elsewhere" / "c")
    unfinished(runs / "deep" / ".hidden" / "d")
    (runs / "link").symlink_to(tmp_path / "elsewhere")
    (runs / ".z.partial-0123abcd").symlink_to(tmp_path / "elsewhere")
    assert sorted(each.path for each in leftovers_below(runs)) == sorted([one, other])
    assert leftovers_below(runs, most_folders=1) == leftovers_of(runs / "a")


def test_behind_a_link_the_place_itself_is_meant(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    aside = unfinished(tmp_path / "disk" / "run")
    (tmp_path / "out").symlink_to("disk/run")
    assert [each.path for each in leftovers_of(tmp_path / "out")] == [aside]


FOREIGN = [
    ".out.partial", ".out.partial-xyz", ".out.partial-0123ABCD", ".out.partial-0123abcde", "out.partial-0123abcd",
    ".out.replaced-", ".out.replaced-1a", ".partial-0123abcd", ".out.trial-x", ".out.backup-1", "..partial-",
]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_only_looks_alike_is_not_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("years")
    assert leftovers_of(tmp_path / "out") == leftovers_below(tmp_path) == []
    assert leftover_at(tmp_path / name) is None


def test_a_file_of_such_a_name_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / ".out.partial-0123abcd").write_text("x")
    assert leftovers_of(tmp_path / "out") == leftovers_below(tmp_path) == []


def test_what_a_command_is_at_work_on_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with write_artifact(target, "dataset", CONFIG, []) as writer:
        fill(writer)
        (found,) = leftovers_of(target)
        assert found.kind == "in use"
        assert not remove(found)
    assert is_artifact(target)


def test_what_a_command_has_begun_to_use_since_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    unfinished(target)
    (found,) = leftovers_of(target)
    with write_artifact(target, "run", CONFIG, [], keep_partial=True) as writer:
        assert not remove(found)
        assert (writer.path / ".checkpoints").exists()


def test_a_trial_of_a_command_that_begins_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    trial = aside_of(target, "trial", "5")
    partial = unfinished(target)
    trial.mkdir()
    with leftovers.locked(partial):
        assert kinds(leftovers_of(target)) == {trial.name: "in use", partial.name: "in use"}
        assert not remove(Leftover(trial, target, "superseded", 0))
    assert kinds(leftovers_of(target)) == {trial.name: "superseded", partial.name: "unfinished"}


def test_what_was_finished_since_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    partial = unfinished(target)
    (found,) = leftovers_of(target)
    make(tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        path.rename(partial / path.name)
    assert not remove(found)
    assert is_artifact(partial)


def test_a_replaced_artifact_is_not_removed_while_a_command_removes_it(tmp_path: Path) -> None:
    """Its directory is locked by nobody; that of the new one, which lies at the place by then, is."""
    target = tmp_path / "out"
    make(target)
    old = replaced(target)
    with leftovers.locked(target):
        (found,) = leftovers_of(target)
        assert found.kind == "in use"
        assert not remove(Leftover(found.path, found.place, "superseded", found.size_bytes))
    assert old.exists()
    (found,) = leftovers_of(target)
    assert remove(found)


def test_a_finished_artifact_that_is_nowhere_else_stays(tmp_path: Path) -> None:
    """Killed between two renames where the file system cannot exchange, or finished and not put in its place."""
    target = tmp_path / "out"
    for aside in (aside_of(target, "replaced", "5"), partial_path(target, CONFIG)):
        make(target)
        target.rename(aside)
    found = leftovers_of(target)
    assert set(kinds(found).values()) == {"finished"}
    assert not any(remove(each) for each in found)
    assert all(verify(each.path, read_manifest(each.path), hashes=True) == [] for each in found)


def test_an_artifact_that_was_replaced_may_go(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    target.rename(aside_of(target, "replaced", "5"))
    make(tmp_path / "new")
    (tmp_path / "new").rename(target)
    (found,) = leftovers_of(target)
    assert found.kind == "superseded"
    assert remove(found)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_damaged_manifest_is_nobodys_to_remove(tmp_path: Path) -> None:
    partial = unfinished(tmp_path / "out")
    (partial / MANIFEST).write_text("{")
    (found,) = leftovers_of(tmp_path / "out")
    assert found.kind == "finished"
    assert not remove(found)


def test_whatever_lies_about_no_file_of_others_is_touched(tmp_path: Path) -> None:
    """Folders drawn at random: what is removed is ours and of no use, and everything else is as it was."""
    draw = random.Random(3)
    for number in range(12):
        root = tmp_path / str(number)
        root.mkdir()
        ours = _scatter(draw, root)
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        found = leftovers_below(root)
        assert {each.path for each in found} == ours
        for each in found:
            remove(each)
        left = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        assert left == {path: data for path, data in before.items() if not any(each in path.parents for each in ours)}


def _scatter(draw: random.Random, root: Path) -> set[Path]:
    """Folders, artifacts, leftovers and files of others; returns the leftovers, all of which may go."""
    ours: set[Path] = set()
    for place in range(draw.randint(1, 5)):
        folder = root.joinpath(*draw.choices("abc", k=draw.randint(0, 2)))
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{draw.choice(['out', 'two words', '.dot', 'a.partial-0123abcd'])}{place}"
        if draw.random() < 0.5:
            make(target)
        for action in draw.sample(["unfinished", "replaced", "foreign", "trial"], k=draw.randint(1, 3)):
            if action == "unfinished":
                ours.add(unfinished(target, draw.randint(1, 9)))
            elif action == "replaced":
                ours.add(replaced(target, draw.randint(1, 9)))
            elif action == "trial":
                aside_of(target, "trial", "5").mkdir()
                ours.add(aside_of(target, "trial", "5"))
            else:
                (folder / f".{target.name}.partial-{draw.choice(FOREIGN)[-3:]}").mkdir(exist_ok=True)
                (folder / f"notes-{place}").write_text("x")
    return ours


def test_nothing_at_all_is_an_error_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*, and nothing was left beside it"):
        clean.find(CleanConfig(path=tmp_path / "out"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is no directory"):
        clean.find(CleanConfig(path=tmp_path / "file"))
