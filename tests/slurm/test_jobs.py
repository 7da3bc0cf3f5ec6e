"""Real jobs of a real Slurm: the examples as a chain, a preempted job that goes on, one that fails and stops others."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path

import pytest

from data_registry.core.manifest import read_manifest
from ogpsa_cli.launch import slurm as slurm_variables
from tests.slurm.conftest import OPEN_STATES, PATIENCE_S, TESTBED_MODEL, Slurm, printed

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "slurm"

TWO_NODES = """\
time: "01:00:00"
nodes: 2
tasks-per-node: 1
cpus-per-task: 1
environment: {OMP_NUM_THREADS: 1, GREETING: "it's a $HOME"}
setup: ["echo greeting: $GREETING, submitted from $SLURM_SUBMIT_DIR"]
steps:
  prepare-data: {time: "30"}
"""
PREEMPTED = """\
description: Training that is interrupted, and a step after it.
out: made here
variables: {num-steps: 60}
steps:
  safety:
    command: prepare-data
    options: {source: testbed-safety-sft, num-samples: 64}
  sft:
    command: train-sft
    options:
      model: MODEL
      data: ${steps.safety.out}
      max-steps: ${num-steps}
      batch-size: 4
      accumulation: 1
      max-length: 64
      precision: fp32
      zero: 2
      log-every: 1
  next:
    command: prepare-data
    after: [sft]
    options: {source: testbed-reason, num-samples: 4}
"""
FAILING = """\
description: The first step cannot work.
out: failing
steps:
  missing: {command: prepare-data, options: {source: nothing.jsonl}}
  second: {command: prepare-data, after: [missing], options: {source: testbed-reason, num-samples: 4}}
  third: {command: prepare-data, after: [second], options: {source: testbed-reason, num-samples: 4}}
  apart: {command: prepare-data, options: {source: testbed-reason, num-samples: 4}}
"""
LONG = """\
description: Minutes of work.
out: long
steps:
  model: {command: testbed, options: {retrain: true}}
  next: {command: prepare-data, after: [model], options: {source: testbed-reason, num-samples: 4}}
"""


def submitted(text: str) -> dict[str, str]:
    """Job ids by step, from what submitting prints."""
    words = [line.replace(" job ", " ").split() for line in text.splitlines()]
    return {pair[0]: pair[1] for pair in words if len(pair) == 2 and pair[1].isdigit()}


def submit(slurm: Slurm, folder: Path, recipe: str, profile: str, *options: str) -> dict[str, str]:
    """Write recipe and profile, and submit the chain with ogpsa."""
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "cluster.yaml").write_text(profile)
    out = slurm.ogpsa("slurm", "recipe.yaml", "--profile", "cluster.yaml", "--submit", *options, cwd=folder)
    return submitted(out)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory whose name shells and Slurm stumble over."""
    place = tmp_path / "a place, 100% $HOME"
    place.mkdir()
    shutil.copytree(TESTBED_MODEL, place / "MODEL")
    return place


def test_the_examples_run_as_a_chain_of_two_task_jobs(slurm: Slurm, folder: Path) -> None:
    common = "--precision fp32 --max-length 64"
    settings = {
        "OUT": str(folder / "out"), "MODEL": str(folder / "MODEL"), "SAFETY": "testbed-safety-sft",
        "PAIRS": "testbed-safety-dpo", "REFERENCES": "testbed-reason", "ROWS": "16", "REFERENCE_ROWS": "8",
        "GPUS": "0", "TASKS": "2", "CPUS": "1", "ZERO": "2", "BASIS_OPTIONS": f"{common} --num-samples 4",
        "SFT_OPTIONS": f"{common} --max-steps 2 --accumulation 1",
        "DPO_OPTIONS": f"{common} --max-steps 2 --accumulation 1",
    }  # fmt: skip
    jobs = submitted(Slurm(slurm.env | settings).call(EXAMPLES / "submit.sh", cwd=folder))
    assert list(jobs) == ["prepare", "build-basis", "train-sft", "train-dpo", "evaluate"]
    logs = folder / "out" / "logs"
    assert slurm.wait(list(jobs.values()), logs) == ["COMPLETED"] * 5, printed(logs)
    ends = [slurm.job(job)["EndTime"] for job in jobs.values()]
    starts = [slurm.job(job)["StartTime"] for job in jobs.values()]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    for name in ("basis", "sft", "dpo"):
        assert read_manifest(folder / "out" / name).environment["world_size"] == 2
    results = json.loads((folder / "out" / "results" / "dpo" / "results.json").read_text())
    assert results["suites"]


def test_a_preempted_job_goes_back_into_the_queue_and_finishes(slurm: Slurm, folder: Path) -> None:
    jobs = submit(slurm, folder, PREEMPTED, TWO_NODES)
    assert list(jobs) == ["safety", "sft", "next"]
    logs = folder / "made here" / "logs"
    env = {"SLURM_JOB_ID": jobs["sft"], "SLURM_STEP_ID": "0"}
    # Somebody else has the port that follows from the job's number.
    with socket.create_server(("", slurm_variables.ports(env)[0])):
        metrics = wait_for_steps(slurm, jobs["sft"], folder / "made here", 3, logs)
        slurm.call("scancel", "--batch", "--signal=USR1", jobs["sft"])
        assert slurm.wait(list(jobs.values()), logs) == ["COMPLETED"] * 3, printed(logs)
    assert slurm.job(jobs["sft"])["Restarts"] == "1"
    text = printed(logs)
    assert "stopped with exit code 75, back into the queue" in text
    # Setup and environment, through quotes and dollar signs.
    assert f"greeting: it's a $HOME, submitted from {folder}" in text.replace("/made here/jobs", "")
    run = folder / "made here" / "sft"
    assert read_manifest(run).environment["world_size"] == 2
    steps = [line["step"] for line in map(json.loads, (run / metrics.name).read_text().splitlines()) if "loss" in line]
    assert steps == list(range(1, 61))
    assert slurm.job(jobs["next"])["StartTime"] >= slurm.job(jobs["sft"])["EndTime"]


def wait_for_steps(slurm: Slurm, job: str, out: Path, count: int, logs: Path) -> Path:
    """Wait until training has logged so many steps; the file."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert slurm.job(job)["JobState"] in OPEN_STATES, printed(logs)
        for path in out.glob(".sft.partial-*/metrics.jsonl"):
            if len(path.read_text().splitlines()) >= count:
                return path
        time.sleep(0.1)
    raise AssertionError(f"training did not begin\n{printed(logs)}")


def test_a_job_that_fails_stops_those_that_need_it(slurm: Slurm, folder: Path) -> None:
    jobs = submit(slurm, folder, FAILING, "time: 30:00\n")
    logs = folder / "failing" / "logs"
    states = slurm.wait(list(jobs.values()), logs)
    assert dict(zip(jobs, states, strict=True)) == {
        "missing": "FAILED", "second": "CANCELLED", "third": "CANCELLED", "apart": "COMPLETED",
    }, printed(logs)  # fmt: skip
    assert slurm.job(jobs["missing"])["ExitCode"] == "2:0"
    assert sorted(path.name for path in (folder / "failing").iterdir()) == ["apart", "jobs", "logs"]


def test_a_cancelled_job_does_not_come_back(slurm: Slurm, folder: Path) -> None:
    jobs = submit(slurm, folder, LONG, "time: 30:00\n")
    logs = folder / "long" / "logs"
    deadline = time.monotonic() + PATIENCE_S
    while not list((folder / "long").glob(".model.partial-*")):
        assert time.monotonic() < deadline, printed(logs)
        time.sleep(0.1)
    slurm.call("scancel", jobs["model"])
    assert slurm.wait(list(jobs.values()), logs) == ["CANCELLED", "CANCELLED"]
    assert slurm.job(jobs["model"])["Restarts"] == "0"


def test_a_job_that_slurm_refuses_leaves_none_behind(slurm: Slurm, folder: Path) -> None:
    (folder / "recipe.yaml").write_text(FAILING)
    (folder / "cluster.yaml").write_text("time: 30:00\nsteps: {third: {partition: elsewhere}}\n")
    words = ["python", "-m", "ogpsa_cli", "slurm", "recipe.yaml", "--profile", "cluster.yaml", "--submit"]
    before = slurm.known_jobs()
    slurm.call(*words, cwd=folder, check=False)
    submitted_now = [job for job in slurm.known_jobs() if job not in before]
    assert len(submitted_now) == 2
    # The first may have come to fail by itself before it was cancelled.
    assert set(slurm.wait(submitted_now, folder / "failing" / "logs")) <= {"CANCELLED", "FAILED"}
