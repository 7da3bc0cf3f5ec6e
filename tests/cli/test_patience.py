"""Processes that were asked to stop: those that work are waited for, those that do not answer are ended and named."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ogpsa_cli.launch import patience, processes
from tests.cli.test_launch import READY, assert_nobody_left, command, wait_for


class Child:
    """A process as far as patience looks at it."""

    def __init__(self, pid: int) -> None:
        self.pid, self.code = pid, None

    def poll(self) -> int | None:
        return self.code


class World:
    """Two processes whose states a test sets, and a clock that it turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.states = 1000.0, {0: ("S", 5.0), 1: ("S", 5.0)}
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(patience, "_state", lambda process: self.states[process])
        self.children: list[Any] = [Child(0), Child(1)]
        self.asked = patience.Patience(self.children)

    def pass_time(
        self, seconds: float, work: Callable[[float], dict[int, tuple[str, float]]] | None = None
    ) -> list[int]:
        for _ in range(int(seconds)):
            self.now += 1.0
            if work is not None:
                self.states |= work(self.now - 1000.0)
            silent = self.asked.without_answer()
            if silent:
                return silent
        return []


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_who_does_nothing_is_given_up(world: World) -> None:
    assert world.pass_time(patience.ANSWER_S) == []
    assert world.pass_time(2) == [0, 1]


def test_those_that_have_ended_are_not_named(world: World) -> None:
    world.children[0].code = 75
    assert world.pass_time(2 * patience.ANSWER_S) == [1]


def test_while_one_computes_the_others_may_wait_for_it(world: World) -> None:
    assert world.pass_time(900, lambda passed: {0: ("R", 5.0 + passed / 20)}) == []
    assert world.pass_time(patience.ANSWER_S + 2) == [0, 1]


def test_who_writes_to_a_slow_disk_is_waited_for(world: World) -> None:
    assert world.pass_time(900, lambda passed: {1: ("D", 5.0)}) == []


def test_threads_that_only_look_at_the_clock_are_no_work(world: World) -> None:
    assert world.pass_time(900, lambda passed: {0: ("S", 5.0 + passed / 1000)}) == [0, 1]


def test_a_suspended_one_is_named_even_if_others_wait_for_it_busily(world: World) -> None:
    assert world.pass_time(900, lambda passed: {0: ("R", 5.0 + passed), 1: ("T", 5.0)}) == [1]
    assert world.now - 1000.0 < patience.ANSWER_S + 3


def test_who_was_suspended_for_a_moment_is_not_given_up(world: World) -> None:
    def work(passed: float) -> dict[int, tuple[str, float]]:
        return {0: ("R", 5.0 + passed), 1: ("T" if passed % 50 else "S", 5.0)}

    assert world.pass_time(900, work) == []


def test_nobody_is_waited_for_endlessly(world: World) -> None:
    assert world.pass_time(patience.LIMIT_S, lambda passed: {0: ("R", 5.0 + passed)}) == []
    assert world.pass_time(2, lambda passed: {0: ("R", 3e3 + passed)}) == [0, 1]


def test_this_process_computes_and_is_not_suspended() -> None:
    state, before = patience._state(os.getpid())
    assert state in "RS"
    while patience._state(os.getpid())[1] <= before:
        sum(range(100_000))


@pytest.mark.parametrize(
    ("ranks", "words"),
    [([1], "process 2 of 4"), ([0, 1], "processes 1 and 2 of 4"), ([0, 2, 3], "processes 1, 3 and 4 of 4")],
)
def test_in_words(ranks: list[int], words: str) -> None:
    assert patience.in_words(ranks, 4) == words


# --- With processes ----------------------------------------------------------------------------------------------

# The first ends its work when it is asked to, but only together with the other, which is suspended.
_BODY = (
    """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
    + READY
    + "os.kill(os.getpid(), signal.SIGSTOP) if rank == 1 else None\ntime.sleep(3600)"
)


@pytest.fixture
def no_launcher_above(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_launcher_above")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_rank_that_hangs_is_ended_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    monkeypatch.setattr(patience, "ANSWER_S", 0.3)
    # Under nohup SIGHUP is ignored, here as by everything that is started.
    before = signal.signal(number, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(number, before))

    def ask() -> None:
        assert wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == 2)
        os.kill(os.getpid(), number)

    body = _BODY.replace("SIGTERM, signal.SIG_IGN", f"{number.name}, signal.SIG_IGN")
    threading.Thread(target=ask).start()
    assert processes.start_processes(command(tmp_path, body), 2) == 128 + signal.SIGKILL
    said = capsys.readouterr().err
    assert "2 of 2 did not answer" in said
    assert number.name in said
    assert said.count("error:") == 1
    assert_nobody_left(tmp_path)
