"""The runner of studies: cells that are done are not run again, a killed study goes on, and the table is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies import grid
from benchmarks.studies.grid import run_study
from benchmarks.studies.study import read_grid
from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import read_manifest

HERE = Path(grid.__file__).parent
STUDIES = sorted(path.parent for path in HERE.glob("*/study.yaml"))
STUDY = """\
description: Two ways of training.
recipe: quickstart
measure: naive-results
figures: {safe: testbed.safe, general: testbed.general}
over: {seed: [0]}
cells:
  naive:
    variables: {sft-steps: 2}
  longer:
    variables: {sft-steps: 3}
"""
CELLS = ("naive", "longer")
KNOWN = "it has seed, sft_steps, refresh_every, max_length"
# Runs a study and is asked to stop where its first step begins.
STOPPED = """\
import os, signal, sys
from benchmarks.studies import grid
from pipelines.commands import testbed
testbed.run = lambda config: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(grid.main(sys.argv[1:]))
"""
# Runs a study and is killed where the model of the second cell is trained and not yet evaluated.
KILLED = """\
import os, signal, sys
from benchmarks.studies import grid
from pipelines.commands import evaluate
run, calls = evaluate.run, []
def killed(config):
    calls.append(config)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(config)
evaluate.run = killed
sys.exit(grid.main(sys.argv[1:]))
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write(tmp_path)


def write(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    folder = tmp_path / "study"
    folder.mkdir(exist_ok=True)
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "study.yaml").write_text(text)
    return folder


def problems_of(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_grid(write(tmp_path, *changes), tmp_path / "work")
    return caught.value.problems


def finished(work: Path) -> dict[str, str | None]:
    """When each artifact was finished."""
    return {path.parent.name: read_manifest(path.parent).finished for path in work.glob("made/*/manifest.json")}


def test_a_killed_study_goes_on_and_gives_the_same_table(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, work = tmp_path / "whole", tmp_path / "work"
    # Not interrupted, in this process.
    expected = run_study(study, whole)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(study), "--work", str(work)], capture_output=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = finished(work)
    assert len(before) == len(finished(whole)) - 1
    capsys.readouterr()
    assert run_study(study, work) == expected
    said = capsys.readouterr().err
    assert "1 of 2: naive, seed=0: finished" in said
    assert "2 of 2: longer, seed=0\n" in said
    after = finished(work)
    # Places are named after what is made of what, so that both directories have the same.
    assert after.keys() == finished(whole).keys()
    assert {name: after[name] for name in before} == before
    assert run_study(study, work, keep=True) == expected
    assert finished(work) == after
    assert expected.splitlines()[:2] == ["| | safe | general |", "| --- | --- | --- |"]
    (kept,) = (study / "results").iterdir()
    record = json.loads(kept.read_text())
    assert kept.stem == record["date"]
    assert {cell: list(found) for cell, found in record["figures"].items()} == {cell: ["seed=0"] for cell in CELLS}
    assert record["environment"]["packages"]["torch"]
    shown = [f"{100 * record['figures'][name]['seed=0']['general']:.1f}" for name in CELLS]
    assert [line.split(" | ")[-1].rstrip(" |") for line in expected.splitlines()[2:]] == shown


def test_a_study_that_is_asked_to_stop_says_so_and_can_be_resumed(study: Path, tmp_path: Path) -> None:
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED, str(study), "--work", str(tmp_path / "work")], capture_output=True,
        check=False, text=True,
    )  # fmt: skip
    assert stopped.returncode == 75, stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith("stopped (SIGTERM): nothing half-written is left")
    assert stopped.stdout == ""


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_studies_of_the_project_are_whole(folder: Path, tmp_path: Path) -> None:
    found = read_grid(folder, tmp_path)
    assert len(found.runs) == len(found.study.cells) * 3
    # Every cell measures something else, whatever it has in common with others.
    assert len({run.results for run in found.runs if run.repetition == "seed=0"}) == len(found.study.cells)
    for run in found.runs:
        assert run.steps[-1].name == found.study.measure
        made = {str(step.out) for step in run.steps}
        read = [str(item) for step in run.steps for _, value in step.config if isinstance(value, list | str | Path)
                for item in (value if isinstance(value, list) else [value])]  # fmt: skip
        assert {item for item in read if item.startswith(f"{tmp_path}/made")} <= made


def test_cells_share_what_they_have_in_common(study: Path, tmp_path: Path) -> None:
    naive, longer = read_grid(study, tmp_path / "work").runs
    outs = [{step.name: step.out for step in run.steps} for run in (naive, longer)]
    same = {name for name in outs[0] if outs[0][name] == outs[1][name]}
    assert list(outs[0]) == ["model", "safety-sft", "naive", "naive-results"]
    assert same == {"model", "safety-sft"}


def test_a_value_given_takes_the_place_of_the_repetitions(study: Path, tmp_path: Path) -> None:
    def repetitions(*sets: str) -> list[str]:
        return list(dict.fromkeys(run.repetition for run in read_grid(study, tmp_path, sets).runs))

    assert repetitions() == ["seed=0"]
    assert repetitions("seed=[4, 5]") == ["seed=4", "seed=5"]
    longer = read_grid(study, tmp_path, ["seed=4", "steps.naive.max-steps=7"]).runs
    assert [(run.repetition, dict(run.steps[-2].config)["max_steps"]) for run in longer] == [("seed=4", 7)] * 2


def test_files_that_no_command_makes_are_written_for_each_repetition(tmp_path: Path) -> None:
    from benchmarks.studies.merge_testbed import rows

    variables: Mapping[str, Any] = {"seed": 1, "share": 3}
    rows.write(tmp_path, variables)
    lines = {path.stem: path.read_text().splitlines() for path in tmp_path.glob("*.jsonl")}
    assert {name: len(found) for name, found in lines.items()} == {"align": 600, "safe": 1200, "task": 603}
    run = read_grid(HERE / "merge_testbed", tmp_path / "work", ["seed=1", "share=3"]).runs[-1]
    assert {name: run.variables[name] for name in variables} == variables
    sources = {dict(step.config)["source"] for step in run.steps if step.command == "prepare-data"}
    assert sources == {str(tmp_path / "work" / "inputs" / "seed-1-share-3" / f"{name}.jsonl") for name in lines}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("measure: naive-results", "measure: naive-result",
         "measure: there is no step 'naive-result' (did you mean 'naive-results'?)"),
        ("sft-steps: 3", "sft-step: 3",
         f"cell 'longer': the recipe has no variable 'sft-step' (did you mean 'sft_steps'?); {KNOWN}"),
        ("{seed: [0]}", "{sed: [0]}",
         f"cell 'naive': the recipe has no variable 'sed' (did you mean 'seed'?); {KNOWN}"),
        ("variables: {sft-steps: 3}", "steps: {naive: {learnin-rate: 1}}",
         "cell 'longer': step 'naive': unknown option 'learnin_rate' (did you mean 'learning_rate'?)"),
        ("figures:", "figure:", "unknown key 'figure' (did you mean 'figures'?)"),
    ],
)  # fmt: skip
def test_mistakes_in_a_study_are_named(old: str, new: str, expected: str, tmp_path: Path) -> None:
    assert expected in problems_of(tmp_path, (old, new))


def test_what_cannot_be_run_is_refused(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"there is no cell 'longr' \(did you mean 'longer'\?\)"):
        run_study(study, tmp_path / "work", only=["longr"])
    with pytest.raises(ConfigError, match="figures of the whole study"):
        run_study(study, tmp_path / "work", only=["longer"], keep=True)
    with pytest.raises(InputError, match=r"the study .*study\.yaml' does not exist"):
        run_study(tmp_path / "nothing", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_figure_that_was_not_measured_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.studies import table
    from pipelines.evaluation.contract.results import Results

    settings = {"version": "1", "split": "s", "prompt_hash": "p", "template_hash": "t", "decoding": "none",
                "scoring": "nll"}  # fmt: skip
    loss = {"name": "loss", "value": 1.25, "num_items": 3, "higher_is_better": False, "unit": "nats", "groups": ["a"]}
    suite = {"suite": "reference-loss/a", "settings": settings, "metrics": [loss]}
    found = Results.model_validate({"run": "r", "model": "m", "model_fingerprint": "f", "suites": [suite]})
    monkeypatch.setattr(table, "read_results", lambda path: found)
    asked = read_grid(write(tmp_path, ("safe: testbed.safe", "loss: reference-loss/a.loss")), tmp_path / "work")
    with pytest.raises(ConfigError, match=r"there is no 'testbed\.general'; there are reference-loss/a\.loss"):
        table.read_figures(asked, asked.runs)
    known = read_grid(write(tmp_path, ("safe: testbed.safe, general: testbed.general", "loss: reference-loss/a.loss")),
                      tmp_path / "work")  # fmt: skip
    text = table.to_markdown(table.read_figures(known, known.runs), ["loss"])
    assert text.splitlines()[2:] == ["| naive | 1.2500 |", "| longer | 1.2500 |"]
