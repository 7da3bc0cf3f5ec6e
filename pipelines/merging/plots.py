"""Plot of the cosines over depth, by module type, with the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import drawing
from pipelines.drawing import COLOURS, INK, LINES, MARKERS
from pipelines.merging.layer_records import LayerRecord


def draw_rho(path: Path, records: Sequence[LayerRecord], thresholds: Sequence[float]) -> Path | None:
    """Draw rho over depth as PNG; filled markers are repaired layers, hollow ones were kept.

    Args:
        path: the file that is written.
        records: the layer records of a merge; those without rho are left out.
        thresholds: the thresholds, which are drawn as lines.

    Returns:
        The file, or None where no layer has a rho.
    """
    shown = [record for record in records if record.rho is not None]
    if not shown:
        return None
    with drawing.style():
        figure = drawing.new_figure(7.2, 4.0)
        axes = figure.add_subplot()
        for index, kind in enumerate(dict.fromkeys(record.module_type for record in shown)):
            _draw_type(axes, [record for record in shown if record.module_type == kind], kind, index)
        for threshold in thresholds:
            axes.axhline(threshold, color=INK, linewidth=1.0, linestyle=(0, (6, 3)), zorder=1)
            axes.annotate(
                f"threshold\n{threshold:.3g}", (1, threshold), xycoords=("axes fraction", "data"),
                xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, linespacing=1.2,
            )  # fmt: skip
        _frame(axes, shown, thresholds)
        drawing.save(figure, path, dpi=160)
    return path


def _draw_type(axes: Any, records: Sequence[LayerRecord], kind: str, index: int) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    depths = np.array([-1 if record.depth is None else record.depth for record in records])
    rhos = np.array([record.rho for record in records], dtype=float)
    repaired = np.array([record.is_repaired for record in records])
    # Experts share a depth: the line goes through their mean.
    levels = np.unique(depths)
    means = [rhos[depths == level].mean() for level in levels]
    line = LINES[index % len(LINES)]
    axes.plot(levels, means, color=colour, linewidth=1.0, linestyle=line, zorder=2)
    for chosen, face in ((repaired, colour), (~repaired, "white")):
        axes.plot(
            depths[chosen], rhos[chosen], linestyle="none", marker=marker, markersize=5.5, markeredgecolor=colour,
            markerfacecolor=face, markeredgewidth=1.1, zorder=3,
        )  # fmt: skip
    axes.plot([], [], color=colour, linestyle=line, marker=marker, markersize=5.5, label=drawing.label(kind))


def _frame(axes: Any, shown: Sequence[LayerRecord], thresholds: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    top = max([record.rho or 0.0 for record in shown] + [value for value in thresholds if value <= 1])
    bottom = min([0.0, *[value for value in thresholds if value >= -1]])
    axes.set_ylim(bottom - 0.02, min(1.0, top * 1.12) + 0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.03)
    outside = any(record.depth is None for record in shown)
    axes.set_xlabel("block" + (" (-1: outside blocks)" if outside else ""))
    axes.set_ylabel("cos(C D, D)")
    axes.set_title("Agreement of the fine-tuned change with alignment\nfilled: repaired, hollow: kept")
    drawing.frame(axes)
    axes.figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=7,
        handlelength=3.0, columnspacing=1.2, handletextpad=0.4,
    )  # fmt: skip
