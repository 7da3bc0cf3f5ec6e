"""Answers made by two processes, killed and stopped on the way: the same results as those of one left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_registry.testbed import MODEL_DIR
from data_registry.testbed import suite as testbed_items
from pipelines.commands import evaluate
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.evaluation.answering.store import read_generations
from pipelines.evaluation.contract.results import read_results
from pipelines.evaluation.contract.verdict import read_verdicts
from tests.faults import points
from tests.faults.points import Point

pytestmark = pytest.mark.distributed


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(item.messages[-1]["content"] for item in testbed_items.items()[:300]))
    return file


LAUNCHER = (
    "import sys; from ogpsa_cli.launch import processes; "
    "sys.exit(processes.start_processes(sys.argv[1:], 2, listens=True))"
)


def run(out: Path, prompts: Path, stop: Point | None = None) -> subprocess.CompletedProcess[str]:
    """Two processes; where there is a stop, the launcher gets a signal when the second of them comes there.

    It ends with the pipes, which the ranks have from it: none of them is alive then.
    """
    words = ["evaluate", MODEL_DIR, "--suite", "prompts", "--harmful", prompts, "--out", out, "--batch-size", "4"]
    arguments = list(map(str, words))
    command = [sys.executable, "-m", "ogpsa_cli", *arguments, "--num-procs", "2"]
    if stop is not None:
        mark = out.with_name("mark")
        command = [sys.executable, "-c", LAUNCHER, sys.executable, *points.command([stop], mark, *arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=1800, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def at_batch(number: int, signal_name: str) -> Point:
    """The second process comes to its answers of this number, a few at a time."""
    function = "pipelines.evaluation.answering.asking:_read"
    return Point(function, (signal_name,), call=number, to="launcher", ranks=(1,))


def shards(folder: Path) -> list[Path]:
    return list(folder.glob(".r.partial-*/answering/*.parquet"))


def test_a_killed_and_a_stopped_run_of_two_processes_go_on_and_end_as_one_process_does(tmp_path, prompts):
    first = run(tmp_path / "r", prompts, at_batch(7, "SIGKILL"))
    assert first.returncode == -signal.SIGKILL, first.stderr
    done = shards(tmp_path)
    assert 6 <= len(done) < 75
    assert not (tmp_path / "r").exists()

    second = run(tmp_path / "r", prompts, at_batch(7, "SIGTERM"))
    assert second.returncode == 75, second.stderr
    assert second.stderr.count("answers: stored; the same command goes on from there") == 1
    assert len(done) + 6 <= len(shards(tmp_path)) < 75

    third = run(tmp_path / "r", prompts)
    assert third.returncode == 0, third.stderr
    assert "of 300 answers are there already" in third.stderr
    assert third.stdout.count("harmful-compliance %") == 1  # one process speaks
    assert not list(tmp_path.glob(".r.partial-*"))

    alone = evaluate.run(
        EvaluateConfig(
            model=str(MODEL_DIR), suite=["prompts"], harmful=[prompts], out=tmp_path / "alone", batch_size=4
        )
    )  # fmt: skip
    assert read_generations(tmp_path / "r") == read_generations(alone.path)
    assert read_verdicts(tmp_path / "r") == read_verdicts(alone.path)
    assert read_results(tmp_path / "r") == alone.results
