"""``ogpsa clean``, and the lines of ``inspect`` and ``doctor`` that lead to it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from pipelines.core.artifact import partial_path
from pipelines.core.aside import aside_of
from tests.cli.conftest import Cli
from tests.core.small_artifacts import CONFIG, make


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An artifact with a replaced one and unfinished work beside it."""
    target = tmp_path / "runs" / "out"
    make(target)
    aside_of(target, "replaced", "7").mkdir()
    partial = partial_path(target, CONFIG)
    partial.mkdir()
    (partial / "answers").write_bytes(bytes(1500))
    return target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_dry_run_lists_and_leaves_everything(cli: Cli, place: Path) -> None:
    before = names(place.parent)
    outcome = cli("clean", place, "--dry-run")
    assert outcome.code == 0
    assert f"{partial_path(place, CONFIG)}, 1.5 kB, unfinished: the same command would go on from it" in outcome.out
    assert f"{aside_of(place, 'replaced', '7')}, 0 bytes, of no use any more" in outcome.out
    assert names(place.parent) == before


@pytest.mark.parametrize("where", ["the artifact", "the folder", "the folder above"])
def test_unfinished_work_is_removed_only_if_somebody_agrees(cli: Cli, place: Path, where: str) -> None:
    path = {"the artifact": place, "the folder": place.parent, "the folder above": place.parent.parent}[where]
    outcome = cli("clean", path)
    assert outcome.code == 0
    assert "removed: " in outcome.out
    assert "kept: " in outcome.out
    assert f"ogpsa clean {path} --yes" in outcome.err
    assert names(place.parent) == [partial_path(place, CONFIG).name, "out"]
    outcome = cli("clean", path, "--yes")
    assert (outcome.code, outcome.err) == (0, "")
    assert names(place.parent) == ["out"]
    assert cli("clean", path).out == "nothing was left behind\n"


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("yes", True), ("", False), ("n", False)])
def test_at_a_terminal_it_asks(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch, answer: str, goes: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer + "\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert cli("clean", place).code == 0
    assert "remove this unfinished work (1.5 kB)? [y/N]" in sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert partial_path(place, CONFIG).exists() is not goes


def test_a_finished_artifact_that_is_nowhere_else_is_named_and_kept(cli: Cli, place: Path) -> None:
    aside = aside_of(place, "partial", "0123abcd")
    place.rename(aside)
    outcome = cli("clean", place, "--yes")
    assert f"kept: {aside}" in outcome.out
    assert f"mv {aside} {place}" in outcome.err
    assert (aside / "manifest.json").exists()


def test_one_directory_can_be_named(cli: Cli, place: Path) -> None:
    assert cli("clean", aside_of(place, "replaced", "7")).code == 0
    assert names(place.parent) == [partial_path(place, CONFIG).name, "out"]


def test_what_is_not_there_is_a_clear_error(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("clean", tmp_path / "nowhere")
    assert outcome.code == 2
    assert "nothing was left beside it" in outcome.err


def test_inspect_names_what_was_left_behind(cli: Cli, place: Path) -> None:
    outcome = cli("inspect", place)
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("left behind")]
    assert line.split(maxsplit=2)[2] == f"2 directories, 1.5 kB:  ogpsa clean {place}"
    found = json.loads(cli("inspect", place, "--as-json").out)["leftovers"]
    assert [(each["kind"], each["size_bytes"]) for each in found] == [("unfinished", 1500), ("superseded", 0)]
    cli("clean", place, "--yes")
    assert "left behind" not in cli("inspect", place).out


def test_doctor_names_what_was_left_behind_here(
    cli: Cli, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.inspecting.remains import remains_findings

    monkeypatch.chdir(tmp_path)
    (finding,) = remains_findings()
    assert finding.value == "2 directories, 1.5 kB"
    assert "ogpsa clean ." in finding.consequence
    cli("clean", ".", "--yes")
    (finding,) = remains_findings()
    assert (finding.value, finding.consequence) == ("nothing", "")
