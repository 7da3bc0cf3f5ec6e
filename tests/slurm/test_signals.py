"""Signals that Slurm sends to the tasks of a step themselves, without a batch script, and a task that dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.slurm.conftest import PATIENCE_S, TESTBED_MODEL, Slurm

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
SRUN = ["srun", "--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]


@contextmanager
def srun(slurm: Slurm, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Two tasks on two nodes, and their output in a pipe."""
    env = {**slurm.env, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*SRUN, sys.executable, "-m", "ogpsa_cli", *arguments],
        env=env, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_steps(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Wait until training has logged so many steps."""
    deadline = time.monotonic() + PATIENCE_S
    while sum(len(path.read_text().splitlines()) for path in folder.glob(".run.partial-*/metrics.jsonl")) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def newest_step(slurm: Slurm) -> str:
    """Such as ``12.0``; one that has just ended may still be listed."""
    steps = slurm.call("squeue", "--steps", "--noheader", "--format=%i").split()
    return max((step for step in steps if step.partition(".")[2].isdigit()), key=lambda step: int(step.split(".")[0]))


def test_tasks_that_are_signalled_save_together_and_a_dead_one_ends_the_step(slurm: Slurm, tmp_path: Path) -> None:
    shutil.copytree(TESTBED_MODEL, tmp_path / "model")
    slurm.ogpsa("prepare-data", "testbed-safety-sft", "--num-samples", "64", "--out", "data", cwd=tmp_path)
    train = [
        "train-sft", "model", "--data", "data", "--max-steps", "100000", "--batch-size", "4", "--accumulation", "1",
        "--max-length", "64", "--precision", "fp32", "--zero", "2", "--log-every", "1", "--out", "run",
    ]  # fmt: skip
    logged = 0
    for name in ("TERM", "INT"):
        with srun(slurm, tmp_path, *train) as process:
            wait_for_steps(process, tmp_path, logged + 2)
            slurm.call("scancel", f"--signal={name}", newest_step(slurm))
            said = process.communicate(timeout=PATIENCE_S)[0]
        assert process.returncode == 75, said
        assert said.count(f"stopped (SIG{name}) at step ") == 1, said
        (metrics,) = tmp_path.glob(".run.partial-*/metrics.jsonl")
        logged = len(metrics.read_text().splitlines())
    with srun(slurm, tmp_path, *train) as process:
        wait_for_steps(process, tmp_path, logged + 2)
        os.kill(task(slurm, rank=1), signal.SIGKILL)
        said = process.communicate(timeout=PATIENCE_S)[0]
        # Otherwise the other would go on for all of its steps.
    # The dead one's, or that of the other, which Slurm ends: srun returns the higher.
    assert process.returncode in (128 + signal.SIGKILL, 128 + signal.SIGTERM), said
    assert "task 1: Killed" in said


def task(slurm: Slurm, rank: int) -> int:
    """The process of a task of this cluster."""
    wanted = {f"SLURM_PROCID={rank}".encode(), f"SLURM_CONF={slurm.env['SLURM_CONF']}".encode()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted <= {*variables} and b"ogpsa_cli" in words:
                return int(entry.name)
    raise AssertionError(f"there is no task {rank}")
