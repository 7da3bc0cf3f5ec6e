"""Training curves: what the logs of runs hold, a panel for each figure, the runs together in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from pipelines.reporting.behind import TrainingRun, is_number

MOST_LINES: Final = 7
# Points of a line: with many runs, fewer, so that the page stays small.
_POINTS: Final = 120
_ALL_POINTS: Final = 60_000
_FEWEST_POINTS: Final = 25
# Counts and clocks, which say nothing of what was learned; and sums over a whole run.
_NO_CURVES: Final = ("step", "epoch", "num_tokens", "total_flos", "num_input_tokens_seen")
_SUMMARIES: Final = ("tokens/", "train_", "eval_runtime", "eval_samples", "eval_steps")
_COUNTS: Final = ("/rows", "/tokens", "/counted")
_LARGEST: Final = 1e300
_FIRST: Final = (
    "loss",
    "eval_loss",
    "forget/",
    "retain/",
    "anchor/",
    "prompt/",
    "learning_rate",
    "grad_norm",
    "projection/",
)

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Line:
    """One run in a panel: ``[step, value]`` points, and the place of its style."""

    label: str
    style: int
    points: Points


@dataclass(frozen=True)
class Panel:
    """One figure of the logs.

    Attributes:
        key: its name in the logs.
        lines: the runs that have it.
    """

    key: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Group:
    """As many runs as can be told apart, in panels.

    Attributes:
        labels: the runs; the place of each is its style.
        panels: the figures that any of them has.
    """

    labels: tuple[str, ...]
    panels: tuple[Panel, ...]


def make_groups(runs: Sequence[tuple[str, TrainingRun]]) -> list[Group]:
    """The curves of all training runs, in groups.

    Args:
        runs: each with the label that the page gives it.
    """
    series = [(label, _series(found.metrics)) for label, found in runs]
    series = [(label, found) for label, found in series if found]
    count = sum(len(found) for _, found in series)
    most = max(_FEWEST_POINTS, min(_POINTS, _ALL_POINTS // max(1, count)))
    groups = []
    for first in range(0, len(series), MOST_LINES):
        part = series[first : first + MOST_LINES]
        keys = sorted({key for _, found in part for key in found}, key=_order)
        panels = [
            Panel(
                key,
                tuple(
                    Line(label, style, _thinned(found[key], most))
                    for style, (label, found) in enumerate(part)
                    if key in found
                ),
            )
            for key in keys
        ]
        groups.append(Group(tuple(label for label, _ in part), tuple(panels)))
    return groups


def _series(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Points]:
    """Every figure with two points or more, in order of steps; a step that was logged twice counts as it was last."""
    found: dict[str, dict[float, float]] = {}
    names = dict.fromkeys(key for line in metrics for key in line)
    for key in names:
        if key in _NO_CURVES or key.startswith(_SUMMARIES) or key.endswith(_COUNTS):
            continue
        # What has left all bounds has no place on a scale either.
        points = {
            float(line["step"]): float(value)
            for line in metrics
            if is_number(value := line.get(key)) and abs(value) < _LARGEST
        }
        if points:
            found[key] = points
    return {key: tuple(sorted(points.items())) for key, points in found.items() if len(points) > 1}


def _thinned(points: Points, most: int) -> Points:
    """At most so many points: means over equal numbers of logged steps."""
    if len(points) <= most:
        return points
    ends = [round(index * len(points) / most) for index in range(most + 1)]
    return tuple(
        (points[(first + last) // 2][0], sum(value for _, value in points[first:last]) / (last - first))
        for first, last in pairwise(ends)
    )


def _order(key: str) -> tuple[int, str]:
    place = next(
        (place for place, name in enumerate(_FIRST) if key == name or (name[-1] == "/" and key.startswith(name))), 99
    )
    return place, key
