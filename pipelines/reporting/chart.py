"""The trade-off chart: safety against capability, one point for each run, with intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import drawing
from pipelines.drawing import COLOURS, FAINT, INK, MARKERS, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

# A column of the legend holds so many characters; two go side by side.
_LEGEND_WIDTH = 34
_LEGEND_COLUMNS = 2
# Of more runs than this, the legend would be longer than the chart: only the start and the front have names then.
_MOST_NAMED = 24


@dataclass(frozen=True)
class Estimate:
    """A figure in per cent with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """One run in the chart.

    Attributes:
        label: the run's name in the legend.
        capability: the horizontal place.
        safety: the vertical place.
        note: written behind the label.
        is_start: the model before alignment, to which the others are joined.
    """

    label: str
    capability: Estimate
    safety: Estimate
    note: str = ""
    is_start: bool = False


def draw_tradeoff(points: Sequence[Point], *, capability_label: str, safety_label: str, caption: str = "") -> Drawing:
    """Draw safety against capability; better is up and to the right. The legend above names the runs.

    Of many runs, it names the start and those on the Pareto front, and the others are small grey marks.

    Args:
        points: the runs; at most one is the start.
        capability_label: the label of the horizontal axis.
        safety_label: the label of the vertical axis.
        caption: a line below the chart, such as what the bars mean.

    Raises:
        ValueError: there are no points, or several starts.
    """
    starts = [point for point in points if point.is_start]
    if not points or len(starts) > 1:
        raise ValueError(f"a chart needs points and at most one start, not {len(points)} and {len(starts)}")
    front = pareto_front(points)
    named, others = _named(points, front)
    texts = {id(point): _legend_text(point) for point in named}
    lines = [*texts.values(), *(["others"] if others else [])]
    with drawing.style():
        figure = drawing.new_figure(5.6, 3.8 + 0.17 * _legend_lines(lines))
        axes = figure.add_subplot()
        _frame(axes, points, capability_label, safety_label)
        if starts:
            _join_to_start(axes, starts[0], named)
        handles = [_draw_point(axes, point, texts[id(point)], "o", INK, hollow=True) for point in starts]
        for index, point in enumerate(point for point in named if not point.is_start):
            is_second_round = index // len(MARKERS) % 2 == 1
            marker, colour = MARKERS[index % len(MARKERS)], COLOURS[index % len(COLOURS)]
            handles.append(_draw_point(axes, point, texts[id(point)], marker, colour, hollow=is_second_round))
        handles += _draw_others(axes, others)
        handles += _draw_front(axes, front)
        figure.legend(
            handles=handles, loc="outside upper center", ncols=_LEGEND_COLUMNS if len(handles) > 1 else 1,
            alignment="left",
        )  # fmt: skip
        if caption:
            figure.supxlabel(caption, fontsize=7.5, color=QUIET)
        drawing.fix_layout(figure)
    return figure


def _named(points: Sequence[Point], front: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """The points that have a name in the chart, and the others, in their order."""
    if len(points) <= _MOST_NAMED:
        return list(points), []
    first = [id(point) for point in front[: _MOST_NAMED - 1]]
    named = [point for point in points if point.is_start or id(point) in first]
    return named, [point for point in points if not point.is_start and id(point) not in first]


def _draw_others(axes: Axes, others: Sequence[Point]) -> list[Any]:
    """Grey marks, all drawn at once; the one that stands for them in the legend, where there are any."""
    if not others:
        return []
    (drawn,) = axes.plot(
        [point.capability.value for point in others], [point.safety.value for point in others],
        ".", markersize=4.5, color=QUIET, zorder=2, clip_on=False,
    )  # fmt: skip
    drawn.set_label(f"{len(others)} other runs, without bars")
    return [drawn]


def _legend_text(point: Point) -> str:
    label = drawing.label(point.label)
    text = ", ".join(part for part in (label, point.note) if part)
    if len(text) <= _LEGEND_WIDTH:
        return text
    return "\n".join([*textwrap.wrap(label, _LEGEND_WIDTH), *([point.note] if point.note else [])])


def _legend_lines(texts: Sequence[str]) -> int:
    """Lines of the legend's longest column, with one for the Pareto front."""
    counts = [text.count("\n") + 1 for text in texts] + [1]
    rows = -(-len(counts) // _LEGEND_COLUMNS)
    return max(sum(counts[first : first + rows]) for first in range(0, len(counts), rows))


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats: none is at least as good both ways and better in one. Left to right."""

    def beats(other: Point, point: Point) -> bool:
        ahead = (other.capability.value - point.capability.value, other.safety.value - point.safety.value)
        return min(ahead) >= 0 and max(ahead) > 0

    front = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(front, key=lambda point: (point.capability.value, -point.safety.value))


def _frame(axes: Axes, points: Sequence[Point], capability_label: str, safety_label: str) -> None:
    axes.set_xlabel(drawing.label(capability_label) + "  →")
    axes.set_ylabel(drawing.label(safety_label) + "  →")
    drawing.frame(axes, grid="both")
    for estimates, limit in (
        ([point.capability for point in points], axes.set_xlim),
        ([point.safety for point in points], axes.set_ylim),
    ):
        low, high = min(e.low for e in estimates), max(e.high for e in estimates)
        margin = max(0.08 * (high - low), 1.5)
        limit(low - margin, high + margin)
    # Shares end at 0 and 100, even where a margin makes room for the bars.
    axes.xaxis.set_major_locator(_ticks())
    axes.yaxis.set_major_locator(_ticks())


def _ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    class Percent(MaxNLocator):
        def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
            return [value for value in np.asarray(super().tick_values(vmin, vmax)) if -1e-9 <= value <= 100 + 1e-9]

    return Percent(nbins=6, steps=[1, 2, 2.5, 5, 10])


def _join_to_start(axes: Axes, start: Point, points: Sequence[Point]) -> None:
    """Thin lines from the start to each run, and the capability that alignment should keep."""
    axes.axvline(start.capability.value, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for point in points:
        if not point.is_start:
            axes.plot(
                [start.capability.value, point.capability.value],
                [start.safety.value, point.safety.value],
                color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1,
            )  # fmt: skip


def _draw_front(axes: Axes, front: Sequence[Point]) -> list[Any]:
    """Steps under which everything is beaten by a point of the front; the line for the legend, where there is one."""
    if len(front) < 2:
        return []
    return axes.step(
        [point.capability.value for point in front], [point.safety.value for point in front],
        where="pre", color=QUIET, linewidth=1.1, linestyle=(0, (6, 2)), zorder=2, label="Pareto front",
    )  # fmt: skip


def _draw_point(axes: Axes, point: Point, text: str, marker: str, colour: str, *, hollow: bool = False) -> Any:
    """A marker with its bars; the marker alone, which stands for it in the legend."""
    x, y = point.capability, point.safety
    drawn = axes.errorbar(
        [x.value], [y.value],
        xerr=[[x.value - x.low], [x.high - x.value]], yerr=[[y.value - y.low], [y.high - y.value]],
        fmt=marker, markersize=7.5, markerfacecolor="white" if hollow else colour, markeredgecolor=colour,
        markeredgewidth=1.2, ecolor=colour, elinewidth=1.1, capsize=2.5, capthick=1.1, zorder=3, clip_on=False,
    )  # fmt: skip
    drawn.lines[0].set_label(text)
    return drawn.lines[0]
