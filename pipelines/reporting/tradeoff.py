"""What the trade-off chart shows: one safety and one capability figure for each run, means where there are several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.evaluation.contract.results import Metric
from pipelines.reporting.chart import Estimate, Point, pareto_front
from pipelines.reporting.figures import Figure
from pipelines.reporting.runs import Run

_KNOWN_LABELS = {
    "testbed:safe": "Harmful requests refused (%)",
    "testbed:general": "General ability: mean exact match over ten skills (%)",
}
CAPTION = "Bars: 95 % intervals over the items, of one training run each. The start is hollow."


@dataclass(frozen=True)
class Tradeoff:
    """The points of the chart, its axes, and what could not be in it.

    Attributes:
        points: one for each run that has all figures of both axes.
        capability_label: the label of the horizontal axis.
        safety_label: the label of the vertical axis.
        left_out: runs without a point, with the reason.
    """

    points: tuple[Point, ...]
    capability_label: str
    safety_label: str
    left_out: tuple[str, ...]

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the runs that no other one beats."""
        return tuple(point.label for point in pareto_front(self.points))


def make_tradeoff(
    runs: Sequence[Run], start: Run | None, *, safety: Sequence[Figure], capability: Sequence[Figure],
    over_refusal: Sequence[Figure],
) -> Tradeoff | None:  # fmt: skip
    """Place every run; None where there is nothing to place: no figure for an axis, or no run with all of them.

    Args:
        runs: the runs, in the order of the figures' cells.
        start: the starting model.
        safety: shares of the vertical axis.
        capability: shares of the horizontal axis.
        over_refusal: written beside the points.
    """
    if not safety or not capability:
        return None
    points, left_out = [], []
    for index, run in enumerate(runs):
        missing = [figure.title for figure in (*safety, *capability) if figure.cells[index] is None]
        if missing:
            left_out.append(f"{run.name}: {', '.join(missing)} not measured")
            continue
        refused = [cell.value for figure in over_refusal if (cell := figure.cells[index]) is not None]
        points.append(
            Point(
                label=run.name,
                capability=_mean(capability, index),
                safety=_mean(safety, index),
                note=f"over-refusal {100 * sum(refused) / len(refused):.0f} %" if refused else "",
                is_start=run is start,
            )
        )
    if not points:
        return None
    return Tradeoff(tuple(points), _axis("Capability", capability), _axis("Safety", safety), tuple(left_out))


def _mean(figures: Sequence[Figure], index: int) -> Estimate:
    """Mean of figures in per cent; the ends of the interval as for independent figures, whose variances add up."""
    cells = [_turned(cell, figure) for figure in figures if (cell := figure.cells[index]) is not None]
    value = sum(cell.value for cell in cells) / len(cells)
    below = math.sqrt(sum((cell.value - cell.low) ** 2 for cell in cells)) / len(cells)
    above = math.sqrt(sum((cell.high - cell.value) ** 2 for cell in cells)) / len(cells)
    return Estimate(value, max(0.0, value - below), min(100.0, value + above))


def _turned(cell: Metric, figure: Figure) -> Estimate:
    low, high = (cell.value if end is None else end for end in (cell.low, cell.high))
    if figure.higher_is_better:
        return Estimate(100 * cell.value, 100 * low, 100 * high)
    return Estimate(100 * (1 - cell.value), 100 * (1 - high), 100 * (1 - low))


def _axis(what: str, figures: Sequence[Figure]) -> str:
    if len(figures) == 1 and figures[0].key in _KNOWN_LABELS:
        return _KNOWN_LABELS[figures[0].key]
    names = [figure.title if figure.higher_is_better else f"100 - {figure.title}" for figure in figures]
    shown = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]
    return f"{what}: {'mean of ' if len(names) > 1 else ''}{', '.join(shown)} (%)"
