"""Plot of the cosines over depth, by module type, with the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.merging.layer_records import LayerRecord

# Okabe and Ito's colours; in black and white the markers and line styles tell the types apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5A5A5A")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_INK, _QUIET = "#1a1a1a", "#6f6f6f"


def draw_rho(path: Path, records: Sequence[LayerRecord], thresholds: Sequence[float]) -> Path | None:
    """Draw rho over depth as PNG; filled markers are repaired layers, hollow ones were kept.

    Args:
        path: of the file.
        records: of a merge; those without rho are left out.
        thresholds: drawn as lines.

    Returns:
        The file, or None where no layer has a rho.
    """
    shown = [record for record in records if record.rho is not None]
    if not shown:
        return None
    style: Any = {"font.size": 9, "axes.edgecolor": _INK, "text.color": _INK, "axes.linewidth": 0.8}
    with rc_context(style):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for index, kind in enumerate(dict.fromkeys(record.module_type for record in shown)):
            _draw_type(axes, [record for record in shown if record.module_type == kind], kind, index)
        for threshold in thresholds:
            axes.axhline(threshold, color=_INK, linewidth=1.0, linestyle=(0, (6, 3)), zorder=1)
            axes.annotate(
                f"threshold\n{threshold:.3g}", (1, threshold), xycoords=("axes fraction", "data"),
                xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, linespacing=1.2,
            )  # fmt: skip
        _frame(axes, shown, thresholds)
        figure.savefig(path, dpi=160, facecolor="white", metadata={"Software": None})
    return path


def _draw_type(axes: Any, records: Sequence[LayerRecord], kind: str, index: int) -> None:
    colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
    depths = np.array([-1 if record.depth is None else record.depth for record in records])
    rhos = np.array([record.rho for record in records], dtype=float)
    repaired = np.array([record.is_repaired for record in records])
    # Experts share a depth: the line goes through their mean.
    levels = np.unique(depths)
    means = [rhos[depths == level].mean() for level in levels]
    line = _LINES[index % len(_LINES)]
    axes.plot(levels, means, color=colour, linewidth=1.0, linestyle=line, zorder=2)
    for chosen, face in ((repaired, colour), (~repaired, "white")):
        axes.plot(
            depths[chosen], rhos[chosen], linestyle="none", marker=marker, markersize=5.5, markeredgecolor=colour,
            markerfacecolor=face, markeredgewidth=1.1, zorder=3,
        )  # fmt: skip
    axes.plot([], [], color=colour, linestyle=line, marker=marker, markersize=5.5, label=kind)


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
    axes.set_title(
        "Agreement of the fine-tuned change with alignment\nfilled: repaired, hollow: kept", loc="left", fontsize=9.5
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False, fontsize=8,
        handlelength=3.0, columnspacing=1.2, handletextpad=0.4,
    )  # fmt: skip
