"""Answers made by two processes, killed and stopped on the way: the same results as those of one left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_registry.testbed import MODEL_DIR
from data_registry.testbed import suite as testbed_items
from pipelines.commands import evaluate
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.evaluation.answering.store import read_generations
from pipelines.evaluation.contract.results import read_results
from pipelines.evaluation.judges.judging import read_verdicts

pytestmark = pytest.mark.distributed


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(item.messages[-1]["content"] for item in testbed_items.items()[:300]))
    return file


def start(out: Path, prompts: Path) -> subprocess.Popen[str]:
    command = ["evaluate", MODEL_DIR, "--suite", "prompts", "--harmful", prompts, "--out", out, "--num-procs", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "ogpsa_cli", *map(str, command), "--batch-size", "4"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def shards(folder: Path) -> list[Path]:
    return list(folder.glob(".r.partial-*/answering/*.parquet"))


def test_a_killed_and_a_stopped_run_of_two_processes_go_on_and_end_as_one_process_does(tmp_path, prompts):
    first = start(tmp_path / "r", prompts)
    deadline = time.monotonic() + 200
    while len(shards(tmp_path)) < 6 and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    time.sleep(0.5)  # the ranks die with their parent
    done = shards(tmp_path)
    assert 6 <= len(done) < 75
    assert not (tmp_path / "r").exists()

    second = start(tmp_path / "r", prompts)
    while len(shards(tmp_path)) < len(done) + 6 and time.monotonic() < deadline and second.poll() is None:
        time.sleep(0.02)
    second.send_signal(signal.SIGTERM)
    _, err = second.communicate(timeout=100)
    assert second.returncode == 75, err
    assert err.count("answers: stored; the same command goes on from there") == 1
    assert len(done) + 6 <= len(shards(tmp_path)) < 75

    third = start(tmp_path / "r", prompts)
    out, err = third.communicate(timeout=200)
    assert third.returncode == 0, err
    assert "of 300 answers are there already" in err
    assert out.count("harmful-compliance %") == 1  # one process speaks
    assert not list(tmp_path.glob(".r.partial-*"))

    alone = evaluate.run(
        EvaluateConfig(
            model=str(MODEL_DIR), suite=["prompts"], harmful=[prompts], out=tmp_path / "alone", batch_size=4
        )
    )  # fmt: skip
    assert read_generations(tmp_path / "r") == read_generations(alone.path)
    assert read_verdicts(tmp_path / "r") == read_verdicts(alone.path)
    assert read_results(tmp_path / "r") == alone.results
