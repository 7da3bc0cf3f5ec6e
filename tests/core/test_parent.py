"""A process that works for another one ends with it, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import pytest

from pipelines.core.parallel import ordered_map
from pipelines.core.parent import end_with

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system tells of the parent's end on Linux alone")

PR_GET_PDEATHSIG = 2


def signal_of_parents_end(_: int) -> int:
    found = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(found))
    return found.value


def test_workers_end_with_their_parent() -> None:
    assert list(ordered_map(signal_of_parents_end, range(3), num_workers=2)) == [signal.SIGKILL] * 3
    assert signal_of_parents_end(0) == 0


def test_a_child_ends_when_its_parent_is_killed() -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        made = os.getpid()
        if not os.fork():
            end_with(made)
            os.write(writing, b"x")
            while True:
                signal.pause()
        os.close(writing)
        signal.pause()
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert os.read(reading, 1) == b""  # its end of the pipe closes when it ends, and not before
    os.close(reading)


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    child = os.fork()
    if not child:
        end_with(os.getpid())  # somebody else than its parent
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGKILL
