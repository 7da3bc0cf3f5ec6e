"""Being asked to stop: SIGTERM, SIGUSR1, SIGINT and SIGHUP end a command where nothing is lost, or when it has saved.

By default the first signal raises :class:`StopRequested` wherever the command is, as Ctrl-C does. Within
:func:`deferred` it is only noted: training asks once a step, agrees over all ranks, saves and ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
INTERRUPTED = 130
# A terminal, srun and torchrun may each deliver the same Ctrl-C.
SAME_INTERRUPT_S = 1.0
_NOTHING_LEFT = "nothing half-written is left; run the same command again"


class StopRequested(KeyboardInterrupt):
    """A signal asked this process to stop; libraries let it pass as they do Ctrl-C."""


_received: signal.Signals | None = None
_interrupted_at: float | None = None
_deferrals = 0


def heeded() -> list[signal.Signals]:
    """The signals to handle: all of them, but SIGHUP only if nobody (``nohup``) has it ignored."""
    return [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def listen() -> None:
    """Handle the signals from now on, in this process but not in those it forks."""
    for number in heeded():
        signal.signal(number, _handle)
    os.register_at_fork(after_in_child=_forget)
    sys.unraisablehook = without_stops(sys.unraisablehook)
    # A launcher holds them back until there is somebody to handle them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def without_stops(report: Callable[[Any], object]) -> Callable[[Any], None]:
    """A hook for exceptions that Python cannot pass on, which says nothing of a request to stop.

    A signal may come while Python collects garbage. What its handler raises there goes nowhere, and Python would print
    a traceback; :func:`check` raises it again at the next place where a command looks.

    Args:
        report: the hook for all other exceptions.
    """

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, StopRequested):
            report(unraisable)

    return hook


def _forget() -> None:
    # A pool ends its workers with SIGTERM, and Ctrl-C is for the process that they work for.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    if signal.SIGHUP in heeded():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _handle(number: int, frame: FrameType | None) -> None:
    global _received, _interrupted_at
    now = time.monotonic()
    if number == signal.SIGINT:
        if _interrupted_at is not None and now - _interrupted_at > SAME_INTERRUPT_S:
            os.write(2, b"\ninterrupted\n")
            os._exit(INTERRUPTED)
        if _interrupted_at is None and _deferrals and os.environ.get("RANK", "0") == "0" and sys.stderr.isatty():
            os.write(2, b"\nstopping after this step; Ctrl-C again ends at once\n")
        _interrupted_at = _interrupted_at or now
    first, _received = _received is None, _received or signal.Signals(number)
    # Later ones must not disturb what the first has set going.
    if first and not _deferrals:
        raise StopRequested(_received.name)


def requested() -> str | None:
    """The name of the signal that asked this process to stop, None if none did."""
    return None if _received is None else _received.name


def said(reason: str | None = None) -> str:
    """What to tell the user where a command ends without anything to go on from."""
    return f"stopped ({reason or requested()}): {_NOTHING_LEFT}"


def check() -> None:
    """Stop here if that was asked for and a library swallowed it, or if it came while deferred.

    Raises:
        StopRequested: this process is to stop.
    """
    if _received is not None and not _deferrals:
        raise StopRequested(_received.name)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within this context a signal is noted only; who enters it asks :func:`requested` now and then."""
    global _deferrals
    _deferrals += 1
    try:
        yield
    finally:
        _deferrals -= 1
