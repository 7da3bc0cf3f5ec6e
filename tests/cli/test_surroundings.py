"""Where a command is typed, and what it is given: a removed working directory, and names that are no text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_registry.core.manifest import is_artifact
from tests.cli.conftest import Cli

ROWS = '{"messages": [{"role": "user", "content": "who ?"}, {"role": "assistant", "content": "me ."}]}\n'


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that is gone; returns a directory that is there, with rows in it."""
    (tmp_path / "rows.jsonl").write_text(ROWS)
    (tmp_path / "gone").mkdir()
    return tmp_path


def remove_working_directory(folder: Path) -> None:
    os.chdir(folder / "gone")
    (folder / "gone").rmdir()


def test_absolute_paths_need_no_working_directory(cli: Cli, nowhere: Path) -> None:
    remove_working_directory(nowhere)
    outcome = cli("prepare-data", nowhere / "rows.jsonl", "--out", nowhere / "out")
    assert outcome.code == 0, outcome.err
    assert f"data set: {nowhere / 'out'}" in outcome.out
    assert is_artifact(nowhere / "out")


def test_a_relative_path_needs_one(cli: Cli, nowhere: Path) -> None:
    remove_working_directory(nowhere)
    outcome = cli("prepare-data", nowhere / "rows.jsonl", "--out", "out")
    assert outcome.code == 2
    assert "working directory" in outcome.err
    assert outcome.err.count("error:") == 1
    assert "bug" not in outcome.err


@pytest.mark.parametrize("command", [("doctor",), ("clean", "."), ("quickstart", "--out", "q"), ("inspect", "run")])
def test_every_command_says_that_it_is_gone(cli: Cli, nowhere: Path, command: tuple[str, ...]) -> None:
    remove_working_directory(nowhere)
    outcome = cli(*command)
    assert outcome.code == 2
    assert outcome.err.count("error:") == 1
    assert "bug" not in outcome.err


@pytest.mark.parametrize("name", [b"\xff", b"caf\xe9", b"a\xed\xa0\x80", b"\x80\x81"])
def test_a_name_that_is_no_text_is_refused_before_the_work(cli: Cli, tmp_path: Path, name: bytes) -> None:
    (tmp_path / "rows.jsonl").write_text(ROWS)
    for arguments in (("rows.jsonl", "--out", os.fsdecode(name)), (os.fsdecode(name), "--out", "out")):
        outcome = cli("prepare-data", *arguments)
        assert outcome.code == 2
        assert "is not UTF-8" in outcome.err
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_working_directory_whose_name_is_no_text_is_refused(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / os.fsdecode(b"caf\xe9")
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "rows.jsonl").write_text(ROWS)
    outcome = cli("prepare-data", "rows.jsonl", "--out", "out")
    assert outcome.code == 2
    assert "is not UTF-8" in outcome.err
