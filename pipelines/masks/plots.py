"""Plot of the share of weights that a mask has, over depth, by module type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pipelines import drawing
from pipelines.drawing import COLOURS, INK, LINES, MARKERS
from pipelines.masks.records import TensorRecord

_NUMBER: Final = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")
_TYPES_SHOWN: Final = 12


def draw_shares(path: Path, records: Sequence[TensorRecord], ratio: float) -> None:
    """Draw the share of each type of module in every block as PNG; what lies outside blocks stands at -1.

    Args:
        path: the file that is written.
        records: the rows of a mask.
        ratio: the share of all weights, which is drawn as a line.
    """
    by_type: dict[str, dict[int, tuple[int, int]]] = {}
    for record in records:
        kind, depth = place_of(record.parameter)
        selected, numel = by_type.setdefault(kind, {}).get(depth, (0, 0))
        by_type[kind][depth] = (selected + record.selected, numel + record.numel)
    with drawing.style():
        figure = drawing.new_figure(7.2, 4.0)
        axes = figure.add_subplot()
        for index, (kind, levels) in enumerate(list(by_type.items())[:_TYPES_SHOWN]):
            depths = sorted(levels)
            shares = [levels[depth][0] / max(1, levels[depth][1]) for depth in depths]
            axes.plot(
                depths, shares, color=COLOURS[index % len(COLOURS)], linewidth=1.0, markersize=4.5,
                linestyle=LINES[index % len(LINES)], marker=MARKERS[index % len(MARKERS)], label=drawing.label(kind),
            )  # fmt: skip
        axes.axhline(ratio, color=INK, linewidth=1.0, linestyle=(0, (6, 3)), zorder=1)
        _frame(axes)
        drawing.save(figure, path, dpi=160)


def place_of(name: str) -> tuple[str, int]:
    """The type of module that a parameter belongs to, such as ``q_proj``, and its block; -1 outside blocks."""
    found = _NUMBER.search(name)
    parts = [part for part in name.removesuffix(".weight").split(".") if not part.isdigit()]
    return parts[-1] if parts else name, int(found[1]) if found else -1


def _frame(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.margins(x=0.03)
    axes.set_xlabel("block (-1: outside blocks)")
    axes.set_ylabel("share of weights in the mask")
    axes.set_title("What the mask chooses, by block and type of module\ndashed: all weights together")
    drawing.frame(axes)
    axes.figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=6,
        handlelength=3.0, columnspacing=1.2, handletextpad=0.4,
    )  # fmt: skip
