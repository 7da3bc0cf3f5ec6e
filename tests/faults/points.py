"""Signals at defined points of the program: sent by the process itself when it comes to a function, not after a while.

``python -m tests.faults.points POINTS ARGUMENTS`` is ``ogpsa ARGUMENTS`` with such points (JSON), for real processes
that a launcher starts.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from data_registry.core import stopping
from pipelines.core.job import rank


@dataclass(frozen=True)
class Point:
    """A moment of a command, and the signals that are sent at it.

    Attributes:
        function: ``module:name`` or ``module:Class.name``, where its caller looks it up; the moment is before it runs.
        signals: names, sent one after the other.
        call: at which call of the function.
        to: to whom: this process, the one that started it, or its process group.
        ranks: which ranks do so; None for all.
    """

    function: str
    signals: tuple[str, ...] = ("SIGTERM",)
    call: int = 1
    to: Literal["self", "launcher", "group"] = "self"
    ranks: tuple[int, ...] | None = None


@contextlib.contextmanager
def armed(points: Sequence[Point], mark: Path) -> Iterator[None]:
    """This process sends the signals while this lasts.

    Args:
        points: which of them, and when.
        mark: a file that says, afterwards, when the last of them was reached; beside it, with another suffix, one
            that says how often the function was called again.
    """
    with contextlib.ExitStack() as stack:
        if sum(len(point.signals) for point in points) > 1:
            # Otherwise a second Ctrl-C within a second is taken for the first, delivered twice.
            earlier, stopping.SAME_INTERRUPT_S = stopping.SAME_INTERRUPT_S, -1.0
            stack.callback(setattr, stopping, "SAME_INTERRUPT_S", earlier)
        for point in points:
            if point.ranks is None or rank() in point.ranks:
                _wrap(stack, point, mark)
        yield


def _wrap(stack: contextlib.ExitStack, point: Point, mark: Path) -> None:
    module, _, path = point.function.partition(":")
    holder: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        holder = getattr(holder, part)
    real, calls = getattr(holder, name), 0

    @functools.wraps(real)
    def reached(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > point.call:
            further(mark).write_text(str(calls - point.call))
        if calls == point.call:
            mark.write_text(str(time.time()))
            for number in point.signals:
                _send(point, signal.Signals[number])
            # A launcher hands it on in its own time; the work must not be over by then.
            while point.to == "launcher" and stopping.requested() is None:
                time.sleep(0.01)
        return real(*args, **kwargs)

    setattr(holder, name, reached)
    stack.callback(setattr, holder, name, real)


def further(mark: Path) -> Path:
    """The file that says how often work went on after a signal; there is none where it did not."""
    return mark.with_suffix(".further")


def _send(point: Point, number: signal.Signals) -> None:
    if point.to == "group":
        os.killpg(os.getpgrp(), number)
    else:
        os.kill(os.getpid() if point.to == "self" else os.getppid(), number)


def command(points: Sequence[Point], mark: Path | str, *arguments: str | Path) -> list[str]:
    """What runs ``ogpsa`` with these points after ``python``."""
    told = json.dumps({"points": [asdict(point) for point in points], "mark": str(mark)})
    return ["-m", "tests.faults.points", told, *map(str, arguments)]


def main() -> None:
    told = json.loads(sys.argv.pop(1))
    points = [
        Point(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})
        for fields in told["points"]
    ]
    from ogpsa_cli import __main__ as ogpsa

    # The signals may come as soon as somebody listens.
    with armed(points, Path(told["mark"])):
        ogpsa.main()


if __name__ == "__main__":
    main()
