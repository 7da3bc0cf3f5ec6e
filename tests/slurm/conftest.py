"""A Slurm for the tests of this folder; where it is required, its absence is a failure and no skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import data_registry.testbed
from tests.slurm import cluster

TESTBED_MODEL = Path(data_registry.testbed.__file__).parent / "model"
# A bound for what hangs; how soon something comes is the machine's affair.
PATIENCE_S = 1800.0
OPEN_STATES = frozenset({"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING"})


class Slurm:
    """A running cluster.

    Attributes:
        env: variables with which Slurm's commands and jobs find it.
    """

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def call(self, *words: str | Path, cwd: Path | None = None, check: bool = True) -> str:
        """Standard output of a command."""
        done = subprocess.run(
            list(map(str, words)),
            env=self.env,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def ogpsa(self, *arguments: str | Path, cwd: Path) -> str:
        """Standard output of an ogpsa command on the machine from which jobs are submitted."""
        return self.call(sys.executable, "-m", "ogpsa_cli", *arguments, cwd=cwd)

    def job(self, job_id: str) -> dict[str, str]:
        """What Slurm says of a job: ``JobState``, ``Restarts``, ``StartTime`` and the like."""
        words = self.call("scontrol", "--oneliner", "show", "job", job_id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def known_jobs(self) -> list[str]:
        """The ids of all jobs that there have been, in order."""
        lines = self.call("scontrol", "--oneliner", "show", "jobs", check=False).splitlines()
        return sorted((word[6:] for line in lines for word in line.split()[:1] if word.startswith("JobId=")), key=int)

    def states(self, jobs: Sequence[str]) -> list[str]:
        return [self.job(job)["JobState"] for job in jobs]

    def wait(self, jobs: Sequence[str], logs: Path) -> list[str]:
        """Wait until all jobs have ended; their states. What they printed is shown when they take too long."""
        deadline = time.monotonic() + PATIENCE_S
        while OPEN_STATES.intersection(found := self.states(jobs)):
            assert time.monotonic() < deadline, f"{found} after {PATIENCE_S:.0f} s\n{printed(logs)}"
            time.sleep(0.3)
        return found


def printed(logs: Path) -> str:
    """Everything that jobs wrote."""
    return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')}" for log in sorted(logs.glob("*.out")))


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    missing = cluster.missing_programs()
    if missing:
        reason = f"no Slurm can be started here: {', '.join(missing)} missing"
        if os.environ.get("OGPSA_REQUIRE_SLURM"):
            pytest.fail(f"{reason}; OGPSA_REQUIRE_SLURM asks for it")
        pytest.skip(reason)
    # A short path: munge's socket lies in it.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    try:
        with cluster.running(folder) as env:
            # What pytest set for itself goes to the jobs as well: one thread, no network.
            env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
            yield Slurm(env)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
