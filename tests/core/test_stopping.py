"""Which signals ask a process to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from data_registry.core import stopping


@pytest.fixture
def hangup() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
def test_a_terminal_that_hangs_up_asks_to_stop_unless_nohup_says_otherwise() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert set(stopping.heeded()) == {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert set(stopping.heeded()) == {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT}


_HEARD = {"ignored": (signal.SIG_IGN, 0), "as it was": (signal.SIG_DFL, 75)}


@pytest.mark.parametrize("how", list(_HEARD))
def test_a_process_that_listens(how: str) -> None:
    handler, expected = _HEARD[how]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGHUP, handler)
            stopping.listen()
            os.kill(os.getpid(), signal.SIGHUP)
            code = 0
        except stopping.StopRequested:
            code = 75 if stopping.requested() == "SIGHUP" else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == expected


def test_a_stop_while_garbage_is_collected_prints_no_traceback() -> None:
    said: list[Any] = []
    hook = stopping.without_stops(said.append)
    hook(SimpleNamespace(exc_value=stopping.StopRequested("SIGTERM")))
    assert said == []
    other = SimpleNamespace(exc_value=ValueError("of a finalizer"))
    hook(other)
    assert said == [other]
