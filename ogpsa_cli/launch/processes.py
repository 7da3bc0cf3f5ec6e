"""Several processes of one command on this machine, and the environment that tells them who they are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from data_registry.core import stopping
from data_registry.core.errors import ConfigError, Preempted
from ogpsa_cli.launch import ranks, slurm
from pipelines.core.parent import end_with

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# This variable tells a process that its launcher reports what becomes of the other processes.
STARTED_BY_US = "OGPSA_LAUNCHED"
# The time that a process has to end after this launcher told it to, before it is killed.
GRACE_S = 10.0
# Processes that save on a signal end together, since none leaves before all have written; once one has ended, the
# others may still take this long.
PREEMPTED_GRACE_S = 60.0
_POLL_S = 0.05


def settle_environment() -> None:
    """Make this process's environment say whether it is one of several: translate srun's variables, clear leftovers.

    Raises:
        ConfigError: the variables contradict each other.
    """
    if is_distributed():
        _check_complete()
    elif slurm.is_task_of_several(os.environ):
        os.environ.update(slurm.translate(os.environ))
    else:
        # A script may export WORLD_SIZE or MASTER_ADDR for another purpose; a lone process must not wait because of it.
        for name in _VARIABLES:
            os.environ.pop(name, None)


def is_distributed() -> bool:
    """Whether a launcher (torchrun, ours, or srun after translation) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def _check_complete() -> None:
    numbers = {}
    for name in ("RANK", "WORLD_SIZE"):
        try:
            numbers[name] = int(os.environ[name])
        except ValueError as error:
            raise ConfigError(f"{name} is '{os.environ[name]}', where a number is expected") from error
    if not 0 <= numbers["RANK"] < numbers["WORLD_SIZE"]:
        raise ConfigError(f"RANK is {numbers['RANK']} and WORLD_SIZE is {numbers['WORLD_SIZE']}")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK") if name not in os.environ]
    if missing and numbers["WORLD_SIZE"] > 1:
        raise ConfigError(
            f"RANK and WORLD_SIZE are set, but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not",
            fix="unset RANK and WORLD_SIZE and use --num-procs, or start the command with torchrun or srun",
        )


def num_devices() -> int:
    """The default number of processes: one per visible GPU, and at least one. This asks the driver, not torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = [device.strip() for device in visible.split(",")]
        # CUDA ignores what follows the first invalid entry; -1 is the usual way to hide all devices.
        count = next((index for index, device in enumerate(devices) if device in ("", "-1")), len(devices))
        return max(1, count)
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 1
    return max(1, sum(line.startswith("GPU ") for line in listing.stdout.splitlines()))


def start(num_procs: int, arguments: Sequence[str]) -> int:
    """Run ``ogpsa`` with these arguments in several processes; returns the exit code of the first that fails, or 0."""
    command = [sys.executable, "-m", "ogpsa_cli", *arguments]
    return start_processes(command, num_procs, listens=True)


def start_processes(command: Sequence[str], num_procs: int, *, listens: bool = False) -> int:
    """Run one command in ``num_procs`` processes that know each other, and wait for all of them.

    Signals to this process are passed on to them. When one of them fails, the others are ended, and none outlives this
    process. A second Ctrl-C kills them at once.

    Args:
        command: the command to run, as a list of arguments.
        num_procs: the number of processes.
        listens: whether the command unblocks signals once it can handle them; signals are blocked until then.

    Returns:
        0, or the exit code of the first that failed (128 + n where signal n ended it).
    """
    children: list[subprocess.Popen[bytes]] = []
    received: list[int] = []
    envs = environments(num_procs, os.environ)
    with _forwarding(children, received):
        try:
            for env in envs:
                children.append(_start_child(command, env, hold_signals=listens))
            for number in list(received):
                # The signal arrived while the children were being started; the first of them may have missed it.
                _send(children, number)
            code = _wait(children)
            if received.count(signal.SIGINT) > 1 and code == 128 + signal.SIGKILL:
                return stopping.INTERRUPTED
            if code > 128 and code - 128 not in received:
                _say_killed(children, code - 128)
            return code
        finally:
            _end(children)
            ranks.mark_of(envs[0]).unlink(missing_ok=True)


def _say_killed(children: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    from ogpsa_cli import console

    rank = next((rank for rank, child in enumerate(children) if child.returncode == -number), 0)
    memory = "the system kills when memory runs out: a smaller --batch-size or --max-length; " if number == 9 else ""
    console.show_error(
        f"process {rank + 1} of {len(children)} was ended by {signal.Signals(number).name}; the others were ended too",
        fix=f"{memory}the same command goes on from what is finished",
    )


def start_alone(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a command that is not one of several ranks and ends with this process; the caller handles the signals.

    Args:
        command: the command to run, as a list of arguments.
        variables: environment variables for the command, in addition to those of this process.
    """
    return _start_child(command, {**os.environ, **variables})


def environments(num_procs: int, base: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment of each process, in the order of their ranks."""
    threads = max(1, len(os.sched_getaffinity(0)) // num_procs)
    shared = {
        **base,
        "OMP_NUM_THREADS": base.get("OMP_NUM_THREADS") or str(threads),
        STARTED_BY_US: "1",
        "WORLD_SIZE": str(num_procs),
        "LOCAL_WORLD_SIZE": str(num_procs),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_procs)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start_child(
    command: Sequence[str], env: Mapping[str, str], *, hold_signals: bool = False
) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def die_with_parent() -> None:
        if hold_signals:
            signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
        end_with(parent)

    # Each child has its own process group: Ctrl-C reaches it once, through us, and its workers can be ended with it.
    return subprocess.Popen(command, env=dict(env), process_group=0, preexec_fn=die_with_parent)


@contextmanager
def _forwarding(children: Sequence[subprocess.Popen[bytes]], received: list[int]) -> Iterator[None]:
    """Pass the signals that this process gets on to the children, and record them; a second Ctrl-C kills them all."""
    interrupted: list[float] = []

    def forward(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT:
            if interrupted and now - interrupted[0] <= stopping.SAME_INTERRUPT_S:
                return
            interrupted.append(now)
        received.append(number)
        _send(children, signal.SIGKILL if len(interrupted) > 1 else number)

    previous = {number: signal.signal(number, forward) for number in stopping.SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _send(children: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended, or until one has failed and the others have had their time to end by themselves."""
    first_failure = 0
    deadline = float("inf")
    while True:
        codes = [child.poll() for child in children]
        if not first_failure:
            first_failure = _cause(codes)
            if first_failure:
                deadline = time.monotonic() + (PREEMPTED_GRACE_S if first_failure == Preempted.exit_code else 0.0)
        if all(code is not None for code in codes) or time.monotonic() > deadline:
            return first_failure if first_failure >= 0 else 128 - first_failure
        time.sleep(_POLL_S)


def _cause(codes: Sequence[int | None]) -> int:
    """The exit code that says why a job fails, of those that have ended; 0 while none has failed.

    A process that loses its peer fails an instant later, and both may be seen at once. Then the signal is the cause.
    """
    failures = [code for code in codes if code]
    return next((code for code in failures if code < 0), failures[0] if failures else 0)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the children that still run, first by SIGTERM, then by SIGKILL together with their worker processes."""
    _send(children, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        child.wait()
