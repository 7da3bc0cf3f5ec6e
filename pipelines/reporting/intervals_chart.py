"""Figures of many runs: a row for each run, a panel for each figure, points with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines import drawing
from pipelines.drawing import FAINT, INK, QUIET
from pipelines.evaluation.contract.results import Metric
from pipelines.reporting.figures import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

_PANELS_IN_ROW = 4
_LONGEST_NAME = 40
_ROW_INCHES = 0.13


def draw_intervals(figures: Sequence[Figure], runs: Sequence[str], *, start: str | None) -> Drawing:
    """Draw a panel for each figure, with a point and its 95 % interval for each run; a line marks the starting model.

    Args:
        figures: at least one.
        runs: names, in the order of the figures' cells; the first one stands at the top.
        start: name of the starting model, drawn hollow.
    """
    columns = min(_PANELS_IN_ROW, len(figures))
    rows = -(-len(figures) // columns)
    with drawing.style():
        picture = drawing.new_figure(2.2 + 2.2 * columns, rows * (1.0 + _ROW_INCHES * len(runs)))
        panels = picture.subplots(rows, columns, squeeze=False).ravel()
        for axes, figure in zip(panels, figures, strict=False):
            _draw_panel(axes, figure, None if start is None else list(runs).index(start))
        for axes in panels[len(figures) :]:
            axes.set_axis_off()
        names = [drawing.label(run, longest=_LONGEST_NAME) for run in runs]
        for place, axes in enumerate(panels[: len(figures)]):
            # Ticks are slow to draw: the first panel of a row has them, for their names.
            axes.set_yticks(range(len(runs)) if place % columns == 0 else [])
            axes.set_ylim(len(runs) - 0.4, -0.6)
            if place % columns == 0:
                axes.set_yticklabels(names, fontsize=6.5)
        picture.supxlabel("Bars: 95 % intervals over the items. Dashed: the starting model.", fontsize=7.5, color=QUIET)
        drawing.fix_layout(picture)
    return picture


def _draw_panel(axes: Axes, figure: Figure, start: int | None) -> None:
    scale = 100.0 if figure.unit == "share" else 1.0
    there = [(place, cell) for place, cell in enumerate(figure.cells) if cell is not None]
    values = np.array([cell.value for _, cell in there]) * scale
    ends = np.array([_ends(cell) for _, cell in there]).reshape(-1, 2).T * scale
    places = np.array([place for place, _ in there])
    axes.errorbar(
        values, places, xerr=[values - ends[0], ends[1] - values], fmt="o", markersize=3, color=INK, ecolor=QUIET,
        elinewidth=0.8,
    )  # fmt: skip
    first = figure.cells[start] if start is not None else None
    if start is not None and first is not None:
        axes.axvline(first.value * scale, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.plot([first.value * scale], [start], "o", markersize=4, color=INK, markerfacecolor="white", zorder=4)
    missing = [place for place, cell in enumerate(figure.cells) if cell is None]
    for place in missing:
        axes.annotate("-", (0, place), xycoords=("axes fraction", "data"), fontsize=6.5, color=QUIET, va="center")
    arrow = {True: "↑", False: "↓", None: ""}[figure.better]
    unit = {"share": " %", "score": ""}.get(figure.unit, f" {figure.unit}")
    # The arrow stays with the last word, by a space at which no line is broken.
    title = f"{drawing.label(figure.heading, longest=90)}{unit}\N{NO-BREAK SPACE}{arrow}".rstrip()
    axes.set_title("\n".join(textwrap.wrap(title, 26)))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", top=True, labeltop=True)
    axes.hlines(
        range(len(figure.cells)), 0, 1, transform=axes.get_yaxis_transform(), color=FAINT, linewidth=0.3, zorder=0
    )
    drawing.frame(axes, grid="x")


def _ends(cell: Metric) -> tuple[float, float]:
    if cell.low is None or cell.high is None:
        return cell.value, cell.value
    return min(cell.low, cell.value), max(cell.high, cell.value)
