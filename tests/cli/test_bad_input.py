"""Bad input: each kind gives its exit code, one clear error, and nothing half-written.

A case is a function from a fresh directory and ready-made artifacts to the arguments of ``ogpsa``; what it names as
``OUT`` must not exist afterwards. To add one, write such a function under ``@case`` in ``tests/cli/bad_input``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.bad_input import (
    artifacts,
    command_line,
    evaluating,
    judging,
    masks,
    models,
    preparing,
    token_weights,
    training,
)
from tests.cli.bad_input.cases import ARTIFACT, CASES, CONFIGURATION, OUT, Case, Place, basis, sft, with_options
from tests.cli.conftest import Cli, run_process

# Each adds its own when it is imported.
KINDS = (artifacts, command_line, evaluating, judging, masks, models, preparing, token_weights, training)

# --- The campaign ------------------------------------------------------------------------------------------------


def check_error(err: str, says: str) -> None:
    assert len(re.findall(r"^(?:\[rank \d+\] )?error: ", err, flags=re.MULTILINE)) == 1, err
    assert "Traceback" not in err
    assert "bug of ogpsa" not in err
    assert re.search(says, err, flags=re.DOTALL), err


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if ".partial" in path.name or ".replaced" in path.name]


def test_the_campaign_is_large_enough() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 50


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_bad_input(bad: Case, made: Path, cli: Cli, tmp_path: Path) -> None:
    arguments = bad.prepare(Place(tmp_path, made))
    outcome = cli(*arguments)
    check_error(outcome.err, bad.says)
    assert outcome.code == bad.code
    assert not (tmp_path / OUT).exists()
    assert leftovers(tmp_path) == []


# --- What lies there already is safe -----------------------------------------------------------------------------


def test_a_foreign_directory_is_not_touched(made: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / OUT).mkdir()
    (tmp_path / OUT / "thesis.tex").write_text("years of work")
    outcome = cli(*basis(Place(tmp_path, made), "--overwrite"))
    check_error(outcome.err, "will not be touched")
    assert outcome.code == ARTIFACT
    assert (tmp_path / OUT / "thesis.tex").read_text() == "years of work"


def test_a_result_of_other_settings_is_not_overwritten(made: Path, cli: Cli, tmp_path: Path) -> None:
    existing = shutil.copytree(made / "basis", tmp_path / OUT)
    before = (existing / "manifest.json").read_text()
    outcome = cli(*basis(Place(tmp_path, made), "--seed", "7"))
    check_error(outcome.err, "made with other settings.*--overwrite")
    assert outcome.code == ARTIFACT
    assert (existing / "manifest.json").read_text() == before
    assert leftovers(tmp_path) == []


# --- As real processes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["trian-sft"], CONFIGURATION, "did you mean"),
        (["train-sft"], CONFIGURATION, "required"),
        (["inspect", "nothing"], CONFIGURATION, "does not exist"),
        (["prepare-data", "rows.jsonl", "--out", OUT], CONFIGURATION, "rows.jsonl"),
    ],
)
def test_bad_input_to_a_real_process(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    outcome = run_process(*arguments, cwd=tmp_path)
    check_error(outcome.err, says)
    assert outcome.code == code
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"RANK": "zero", "WORLD_SIZE": "2"}, "RANK is 'zero'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR"),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "?"}, "SLURM_"),
    ],
)
def test_damaged_surroundings(env: dict[str, str], says: str, tmp_path: Path) -> None:
    outcome = run_process("inspect", "nothing", cwd=tmp_path, env=env)
    check_error(outcome.err, says)
    assert outcome.code == CONFIGURATION


@pytest.fixture
def tiny_disk(tmp_path: Path) -> object:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs privileges")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("command", ["prepare-data", "build-basis", "train-sft"])
def test_a_full_disk(command: str, tiny_disk: Path, made: Path, cli: Cli, tmp_path: Path) -> None:
    place = Place(tmp_path, made)
    many = [{"instruction": f"Question {n}?", "output": "Answer. " * 50} for n in range(400)]
    arguments = {
        "prepare-data": ["prepare-data", place.rows("rows.jsonl", many), "--format", "alpaca"],
        "build-basis": basis(place),
        "train-sft": sft(place),
    }[command]
    outcome = cli(*with_options(arguments, "--out", tiny_disk / OUT))
    check_error(outcome.err, "(?i)no space left")
    assert outcome.code == CONFIGURATION
    assert list(tiny_disk.iterdir()) == []
