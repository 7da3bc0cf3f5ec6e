"""A directory in which commands run, under surroundings that are the same on every machine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 1800
# Wide enough for tables, and the same for everybody: help is broken at this width.
_SURROUNDINGS = {
    "COLUMNS": "100",
    "CUDA_VISIBLE_DEVICES": "",
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "TERM": "dumb",
    "TOKENIZERS_PARALLELISM": "false",
}
_LEFT_OUT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "FORCE_COLOR")


@dataclass(frozen=True)
class Answer:
    """What a command line came to."""

    argv: list[str]
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Workspace:
    """A directory for commands, which name their files relative to it."""

    path: Path

    def environment(self) -> dict[str, str]:
        """The surroundings of every command; the user's cache directory is the workspace's own."""
        kept = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT and "SLURM" not in name}
        return {**kept, **_SURROUNDINGS, "XDG_CACHE_HOME": str(self.path / ".cache")}

    def ogpsa(
        self, commands: Mapping[str, str], *, num_procs: int = 1, must_succeed: bool = False
    ) -> dict[str, Answer]:
        """Run command lines, by name, one after the other in one process, or in each of several ranks.

        Raises:
            RuntimeError: the process failed, or one of the commands where they must succeed.
        """
        lines = [
            {"name": name, "argv": shlex.split(line), "must_succeed": must_succeed} for name, line in commands.items()
        ]
        with tempfile.TemporaryDirectory() as directory:
            asked, said = Path(directory, "commands.json"), Path(directory, "said.json")
            asked.write_text(json.dumps(lines))
            # The launch is torchrun's, so that the record does not stand on the project's own.
            torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(num_procs), "-m"]
            launcher = torchrun if num_procs > 1 else []
            self.run([sys.executable, "-m", *launcher, "tests.golden.worker", str(asked), str(said)])
            return {name: Answer(**answer) for name, answer in json.loads(said.read_text()).items()}

    def run(self, command: list[str], **variables: str) -> str:
        """Run a program here and return its standard output.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            command, cwd=self.path, env={**self.environment(), **variables},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
        return done.stdout


@contextmanager
def workspace() -> Iterator[Workspace]:
    """A new workspace, removed afterwards; the length of its path is always the same, for tables with paths."""
    path = Path(tempfile.mkdtemp(prefix="ogpsa-golden-", dir="/tmp")).resolve()
    try:
        yield Workspace(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
