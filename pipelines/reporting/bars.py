"""Grouped bars with intervals: one group for each figure, one bar for each run, told apart by hatching."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines import drawing
from pipelines.drawing import COLOURS, HATCHES, INK, QUIET
from pipelines.evaluation.contract.results import Metric
from pipelines.reporting.figures import Figure
from pipelines.reporting.intervals_chart import draw_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

MOST_BARS = 16
_BARS_IN_ROW = 24
_MOST_IN_ROW = 6
# Characters in a line of the legend, and in the heading below a group of bars.
_LEGEND_WIDTH = 44
_LONGEST_HEADING = 90


def draw_bars(figures: Sequence[Figure], runs: Sequence[str], *, start: str | None) -> Drawing:
    """Draw every figure of every run with its 95 % interval; shares together, each other figure on a scale of its own.

    Bars of many runs would be hairs that no colour tells apart: they become points beside the names of the runs.

    Args:
        figures: at least one.
        runs: names, in the order of the figures' cells.
        start: name of the starting model, drawn white.

    Raises:
        ValueError: there are no figures.
    """
    if not figures:
        raise ValueError("bars need figures")
    if len(runs) > MOST_BARS:
        return draw_intervals(figures, runs, start=start)
    rows = _rows(figures, len(runs))
    with drawing.style():
        columns = max(sum(_width(figure) for figure in row) for row in rows)
        legend_rows = math.ceil(len(runs) / 2)
        width = min(11.0, max(5.6, 1.2 + 0.24 * columns * (len(runs) + 1)))
        picture = drawing.new_figure(width, 2.5 * len(rows) + 0.35 + 0.2 * legend_rows)
        fills = _fills(runs, start)
        grid = picture.add_gridspec(len(rows), 1)
        for index, row in enumerate(rows):
            _draw_row(picture, grid[index], row, fills)
        handles = [_patch(run, fill) for run, fill in zip(runs, fills, strict=True)]
        picture.legend(handles=handles, loc="outside upper center", ncols=2 if len(runs) > 1 else 1)
        picture.supxlabel("Bars: 95 % intervals over the items.", fontsize=7.5, color=QUIET)
        drawing.fix_layout(picture)
    return picture


def _rows(figures: Sequence[Figure], num_runs: int) -> list[list[Figure]]:
    """Shares in rows of as many groups as can be read, then the others."""
    size = max(1, min(_MOST_IN_ROW, _BARS_IN_ROW // max(1, num_runs)))
    rows = []
    for group in (
        [figure for figure in figures if figure.unit == "share"],
        [figure for figure in figures if figure.unit != "share"],
    ):
        count = math.ceil(len(group) / size)
        each = math.ceil(len(group) / count) if count else 0
        rows += [group[first : first + each] for first in range(0, len(group), each or 1)]
    return rows


def _width(figure: Figure) -> float:
    return 1.0 if figure.unit == "share" else 1.5


def _fills(runs: Sequence[str], start: str | None) -> list[dict[str, Any]]:
    fills: list[dict[str, Any]] = []
    others = 0
    for run in runs:
        if run == start:
            fills.append({"facecolor": "white", "hatch": ""})
            continue
        hatch = HATCHES[others % len(HATCHES)]
        fills.append({"facecolor": _pale(COLOURS[others % len(COLOURS)]), "hatch": hatch})
        others += 1
    return fills


def _pale(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return (0.45 + 0.55 * red, 0.45 + 0.55 * green, 0.45 + 0.55 * blue)


def _patch(run: str, fill: dict[str, Any]) -> Any:
    from matplotlib.patches import Patch

    text = "\n".join(textwrap.wrap(drawing.label(run), _LEGEND_WIDTH))
    return Patch(label=text, edgecolor=INK, linewidth=0.8, **fill)


def _draw_row(picture: Drawing, place: Any, row: Sequence[Figure], fills: Sequence[dict[str, Any]]) -> None:
    if row[0].unit == "share":
        axes = picture.add_subplot(place)
        for position, figure in enumerate(row):
            _draw_group(axes, position, figure, fills)
        _frame(axes, [_label(figure) for figure in row], "%")
        axes.set_ylim(0, 104)
        axes.set_yticks(range(0, 101, 25))
        return
    # Losses and other scores have no scale in common.
    inner = place.subgridspec(1, len(row))
    for index, figure in enumerate(row):
        axes = picture.add_subplot(inner[index])
        _draw_group(axes, 0, figure, fills)
        _frame(axes, [_label(figure)], figure.unit if figure.unit != "score" else "")


def _draw_group(axes: Axes, position: int, figure: Figure, fills: Sequence[dict[str, Any]]) -> None:
    scale = 100.0 if figure.unit == "share" else 1.0
    width = 0.8 / len(fills)
    for index, (cell, fill) in enumerate(zip(figure.cells, fills, strict=True)):
        place = position - 0.4 + width * (index + 0.5)
        if cell is None:
            axes.annotate(
                "-", (place, 0), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7, color=QUIET
            )
            continue
        axes.bar(place, cell.value * scale, width * 0.92, edgecolor=INK, linewidth=0.8, **fill)
        low, high = _ends(cell)
        if high > low:
            axes.errorbar(
                place, cell.value * scale, yerr=[[(cell.value - low) * scale], [(high - cell.value) * scale]],
                color=INK, elinewidth=1.0, capsize=2.2, capthick=1.0, clip_on=False,
            )  # fmt: skip


def _ends(cell: Metric) -> tuple[float, float]:
    if cell.low is None or cell.high is None:
        return cell.value, cell.value
    return min(cell.low, cell.value), max(cell.high, cell.value)


def _label(figure: Figure) -> str:
    arrow = {True: "↑", False: "↓", None: ""}[figure.better]
    # The arrow stays with the last word, by a space at which no line is broken.
    text = f"{drawing.label(figure.heading, longest=_LONGEST_HEADING)}\N{NO-BREAK SPACE}{arrow}".rstrip()
    return "\n".join(textwrap.wrap(text, 18))


def _frame(axes: Axes, labels: Sequence[str], unit: str) -> None:
    axes.set_xticks(range(len(labels)), labels)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_ylabel(unit)
    drawing.frame(axes)
