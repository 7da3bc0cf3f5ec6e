"""Reads run ahead: their order, their errors, and what becomes of those that nobody takes."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipelines.weights.read_ahead import read_ahead


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_an_error_in_its_place(workers: int) -> None:
    def read(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        if number == 7:
            raise ValueError("the seventh")
        return number

    taken = []
    with (
        pytest.raises(ValueError, match="the seventh"),
        read_ahead((partial(read, number) for number in range(20)), workers) as results,
    ):
        taken.extend(results)
    assert taken == list(range(7))


def test_what_is_being_read_is_waited_for_before_its_file_is_closed(tmp_path: Path) -> None:
    began, go_on, read = threading.Event(), threading.Event(), []

    def slow() -> None:
        began.set()
        go_on.wait(60)
        read.append(1)

    def leave() -> None:
        with read_ahead([slow], 1):
            began.wait(60)

    thread = threading.Thread(target=leave)
    thread.start()
    began.wait(60)
    thread.join(0.1)
    assert thread.is_alive()
    assert not read
    go_on.set()
    thread.join(60)
    assert read


@pytest.mark.skipif(not hasattr(threading, "_shutdown_locks_lock"), reason="this Python has no such lock")
def test_one_that_was_given_up_can_be_collected_in_a_thread_that_is_just_beginning() -> None:
    def numbers() -> Iterator[int]:
        with read_ahead((partial(int, number) for number in range(50)), 2) as results:
            yield from results

    def collect() -> None:
        # A thread that begins or ends holds this lock, and collections come at any time.
        with threading._shutdown_locks_lock:  # type: ignore[attr-defined]
            gc.collect()

    given_up = numbers()
    next(given_up)
    circle: list[object] = [given_up]
    circle.append(circle)
    del given_up, circle
    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
