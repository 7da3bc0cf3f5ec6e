"""Commands as processes that can be killed, forked with the libraries imported already."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.commands import quickstart
from tests.faults import forks
from tests.faults.boundaries import Boundary, Fault, Watch

# A bound for what hangs: a rank that waits for a dead one would wait far longer.
TIMEOUT_S = 900.0
_POLL_S = 0.004
# Training steps of commands that train for minutes: the work is the same, only shorter.
_FEW_STEPS = {("pipelines.training.testbed_model", "DEFAULT_STEPS"): 8}
_STEPS_OF_QUICKSTART = "sft-steps: 160"


@dataclass(frozen=True)
class Ended:
    """What became of a process.

    Attributes:
        code: exit code; minus the signal's number if one ended it.
        out: standard output.
        err: standard error.
        seconds: how long it ran.
        boundaries: write boundaries below the watched directory, in order; counted where no fault was to happen.
        struck: operation and path at which an injected fault happened.
    """

    code: int
    out: str
    err: str
    seconds: float
    boundaries: Sequence[Boundary] = field(default=(), repr=False)
    struck: str = ""


@dataclass(frozen=True)
class Kill:
    """SIGKILL after so many seconds, to the whole job or to one of the ranks that it started."""

    after_s: float
    rank: int | None = None


def import_libraries() -> None:
    """Import what the commands need, once, before the first fork, and let them train less."""
    forks.import_libraries()
    for (name, constant), value in _FEW_STEPS.items():
        module = importlib.import_module(name)
        assert hasattr(module, constant)
        setattr(module, constant, value)
    _shorten_quickstart()


def _shorten_quickstart() -> None:
    """Let it run its recipe with few steps of training."""
    text = quickstart.RECIPE_FILE.read_text()
    assert _STEPS_OF_QUICKSTART in text
    short = Path(tempfile.mkdtemp(prefix="ogpsa-faults-")) / quickstart.RECIPE_FILE.name
    short.write_text(text.replace(_STEPS_OF_QUICKSTART, "sft-steps: 4"))
    quickstart.RECIPE_FILE = short


def forked(
    arguments: Sequence[str],
    directory: Path,
    *,
    fault: Fault | None = None,
    kill: Kill | None = None,
    arm: Callable[[], None] | None = None,
    typed: str = "",
) -> Ended:
    """Run ``ogpsa`` in a fork of this process, in ``directory``, which is watched.

    Args:
        arguments: after ``ogpsa``.
        directory: where.
        fault: to happen.
        kill: at a moment.
        arm: called in the fork before it is the command.
        typed: on standard input.
    """
    watch, began = Watch(), time.monotonic()
    out, err, given = (directory.with_suffix(suffix) for suffix in (".out", ".err", ".in"))
    given.write_text(typed)
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _be_ogpsa(arguments, directory, (given, out, err), lambda: watch.arm(directory, fault), arm)
    deadline, rank = (began + TIMEOUT_S, None) if kill is None else (began + kill.after_s, kill.rank)
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            break
        if time.monotonic() > deadline:
            _kill(process, rank)
            # Whoever is still there then goes all together.
            deadline, rank = began + 2 * TIMEOUT_S, None
        time.sleep(_POLL_S)
    seconds = time.monotonic() - began
    if seconds > TIMEOUT_S:
        raise TimeoutError(f"ogpsa {' '.join(arguments)} took more than {TIMEOUT_S:.0f} s")
    _wait_until_gone(process)
    code, said, errors = os.waitstatus_to_exitcode(status), *(p.read_text(errors="replace") for p in (out, err))
    with contextlib.closing(watch):
        return Ended(code, said, errors, seconds, watch.boundaries(), watch.struck)


def _be_ogpsa(
    arguments: Sequence[str],
    directory: Path,
    streams: Sequence[Path],
    watch: Callable[[], None],
    arm: Callable[[], None] | None,
) -> None:
    try:
        # All processes of a job are found by their session.
        os.setsid()
        os.chdir(directory)
        for number, path in enumerate(streams):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
            os.dup2(os.open(path, flags), number)
        watch()
        if arm is not None:
            arm()
        forks.be_ogpsa(arguments)
    finally:
        os._exit(1)


def _kill(leader: int, rank: int | None) -> None:
    """Kill a job, or one of its ranks; the others of a job end with its first process."""
    if rank is None:
        # It may not have made its group yet.
        os.kill(leader, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
        return
    ranks = sorted(process for process, parent in _session(leader) if parent == leader)
    if len(ranks) > rank:
        with contextlib.suppress(ProcessLookupError):
            os.kill(ranks[rank], signal.SIGKILL)


def _session(leader: int) -> Iterator[tuple[int, int]]:
    """Living processes of a job, each with its parent."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name may hold blanks and brackets; what follows the last bracket does not.
                state, parent, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == leader and state not in "ZX":
                    yield int(entry.name), int(parent)


def _wait_until_gone(leader: int, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while left := list(_session(leader)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the processes {left} outlive the job that they belong to")
        time.sleep(_POLL_S)
