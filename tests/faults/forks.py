"""Commands as forks of a process that has imported the libraries: those that the campaign starts, and those they start.

What a command starts in turn (ranks, steps of a recipe) goes through the real launcher, which gets a fork where it asks
for a fresh process: with imports of ten seconds in each, nearly every random moment would be one of imports.

``python -m tests.faults.forks ARGUMENTS`` is ``ogpsa ARGUMENTS``, whose processes are forks of this one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import NoReturn

from data_registry.core import stopping

_POLL_S = 0.01
# Everything that the commands import; only imported here, never used, so that a fork is a process that begins.
_LIBRARIES = (
    "ogpsa_cli.app", "ogpsa_cli.launch.processes", "ogpsa_cli.launch.steps",
    "pipelines.commands.prepare_data", "pipelines.commands.build_basis", "pipelines.commands.train_sft",
    "pipelines.commands.train_dpo", "pipelines.commands.train_npo",
    "pipelines.commands.evaluate", "pipelines.commands.merge",
    "pipelines.commands.report", "pipelines.commands.inspect", "pipelines.commands.testbed", "pipelines.commands.run",
    "pipelines.commands.slurm", "pipelines.commands.quickstart", "pipelines.commands.chat",
    "pipelines.commands.doctor", "pipelines.commands.clean",
    "pipelines.training.sft", "pipelines.training.dpo", "pipelines.training.npo", "pipelines.training.plots",
    "pipelines.basis.building", "pipelines.sampling.making", "pipelines.evaluation.measuring",
    "pipelines.evaluation.suites.reference_loss", "pipelines.evaluation.suites.prompts",
    "pipelines.evaluation.suites.testbed",
    "datasets", "trl", "peft", "deepspeed", "transformers.models.llama.modeling_llama", "pyarrow.parquet",
    "matplotlib.pyplot",
)  # fmt: skip


def import_libraries() -> None:
    """Import what the commands need, once, before the first fork."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    # A million objects that stay as they are: without this, each of the many collections walks through them all.
    gc.collect()
    gc.freeze()


class ForkedProcess:
    """What the launcher uses of :class:`subprocess.Popen`, for commands of ours."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], process_group: int, preexec_fn: Callable[[], None]
    ) -> None:
        if list(command[:3]) != [sys.executable, "-m", "ogpsa_cli"] or process_group != 0:
            raise ValueError(f"the launcher starts something else: {command}")
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_started(command[3:], env, preexec_fn)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(self.pid, self.pid)

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("ogpsa", timeout or 0.0)
            time.sleep(_POLL_S)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def _be_started(arguments: Sequence[str], env: Mapping[str, str], preexec_fn: Callable[[], None]) -> NoReturn:
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    # As in a fresh process.
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    preexec_fn()
    os.environ.clear()
    os.environ.update(env)
    be_ogpsa(arguments)


def be_ogpsa(arguments: Sequence[str]) -> NoReturn:
    """Be the command from here on, and end as it does."""
    code = 1
    try:
        from ogpsa_cli.__main__ import main
        from ogpsa_cli.launch import processes

        vars(processes)["subprocess"] = SimpleNamespace(
            Popen=ForkedProcess, run=subprocess.run, TimeoutExpired=subprocess.TimeoutExpired
        )
        sys.argv = ["ogpsa", *arguments]
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        # What this process was forked from has its own things to do at exit.
        os._exit(code)


if __name__ == "__main__":
    be_ogpsa(sys.argv[1:])
