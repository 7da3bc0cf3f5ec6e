"""Runs the commands of a chain one after another, each in a process of its own, and passes signals on to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from data_registry.core import stopping
from data_registry.core.errors import Preempted
from ogpsa_cli.launch import processes
from pipelines.core.log import held_back
from pipelines.core.looking import WouldWork, looking

# How long one turn of waiting for a command lasts.
_TURN_S = 0.5


class StepRunner:
    """Starts commands and waits for them.

    Args:
        variables: environment variables for the commands, in addition to those of this process.

    Attributes:
        received: the numbers of the signals that this process has been sent so far.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self.received: list[int] = []
        self._variables = variables or {}
        self._child: subprocess.Popen[bytes] | None = None
        self._looks = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this context lasts, signals go to the running command; between two commands they are only recorded."""
        previous = {number: signal.signal(number, self._forward) for number in stopping.heeded()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._end()

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        self._send(number)
        if self._looks:
            raise WouldWork

    def _send(self, number: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def finds_made(self, execute: Callable[[], int]) -> bool:
        """Whether a command's artifact is there already, as the command itself finds and says in this process.

        Args:
            execute: what the command does. It ends where it would begin to work.

        Returns:
            False if it would work, refuse, or cannot tell without its libraries, and after a signal. It has then said
            nothing: :meth:`run` starts the command, which does or says it.
        """
        if self.received:
            return False
        self._looks = True
        try:
            with held_back() as release, looking(when_found=release):
                return execute() == 0
        except WouldWork:
            return False
        except Exception:  # noqa: BLE001 - whatever it is, the command meets and reports it in its own process
            return False
        finally:
            self._looks = False
            sys.stdout.flush()

    def run(self, arguments: Sequence[str]) -> int:
        """Run ``ogpsa`` with these arguments.

        Returns:
            The exit code of the command; 75 if a signal to this process kept it from starting or ended it.
        """
        if not self.received:
            self._child = processes.start_alone([sys.executable, "-m", "ogpsa_cli", *arguments], self._variables)
            for number in list(self.received):
                # The signal arrived while the process was being started.
                self._send(number)
            code = _wait(self._child)
            if code >= 0:
                return code
            if -code not in self.received:
                return 128 - code
        # The command ended before it could handle the signal. It left nothing half-written: the chain can resume here.
        return Preempted.exit_code

    def _end(self) -> None:
        """Leave no process behind, whatever happened here."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(processes.GRACE_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The exit code of a process, waited for in short turns.

    Python runs a signal's handler between two instructions. One that arrives just before a wait without an end would
    be handed on when that wait ends, which it never does if the signal is what the process is to end by.
    """
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(_TURN_S)
