"""Plots of a run: loss, projection diagnostics, and the share removed by layer and step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipelines import drawing
from pipelines.drawing import INK, LINES, QUIET

Lines = Sequence[dict[str, Any]]


def draw_plots(directory: Path, metrics: Lines, layers: Sequence[tuple[int, str, float]]) -> list[Path]:
    """Draw the plots that the metrics allow; returns the files written.

    Args:
        directory: the directory for ``loss.png``, ``projection.png`` and ``layers.png``.
        metrics: the lines of ``metrics.jsonl``.
        layers: (step, parameter, share removed) rows; empty without projection.
    """
    files = []
    with drawing.style():
        if len(_series(metrics, "loss")[0]) > 1:
            files.append(_draw_loss(directory / "loss.png", metrics))
        if any(key.startswith("projection/") for line in metrics for key in line):
            files.append(_draw_projection(directory / "projection.png", metrics))
        if layers:
            files.append(_draw_layers(directory / "layers.png", layers))
    return files


def _series(metrics: Lines, key: str) -> tuple[list[int], list[float]]:
    points = [(line["step"], line[key]) for line in metrics if key in line]
    return [step for step, _ in points], [value for _, value in points]


def _draw_loss(path: Path, metrics: Lines) -> Path:
    figure = drawing.new_figure(6.4, 4)
    axes = figure.add_subplot()
    axes.plot(*_series(metrics, "loss"), color=INK, linewidth=1.4, label="training")
    if any("eval_loss" in line for line in metrics):
        axes.plot(*_series(metrics, "eval_loss"), color=INK, linestyle="--", marker="o", label="held-out")
        axes.legend()
    _finish(axes, "Loss", "mean token loss")
    drawing.save(figure, path, dpi=150)
    return path


def _draw_projection(path: Path, metrics: Lines) -> Path:
    figure = drawing.new_figure(10, 6.4)
    axes = figure.subplots(2, 2, sharex=True)
    share, conflict, leak, loss = axes.flat
    share.plot(*_series(metrics, "projection/removed"), color=INK, label="reference subspace")
    share.plot(*_series(metrics, "projection/removed_random"), color=QUIET, ls="--", label="random subspace")
    share.set_ylim(bottom=0)
    _finish(share, "Share removed", "|Pg| / |g|")
    for panel, prefix, title, label in (
        (conflict, "projection/conflict/", "Conflict (negative: the step raises that loss)", "cos(g, b)"),
        (leak, "projection/leak/", "Leak (positive: the step raised that loss)", "<b, Δθ> / |b||Δθ|"),
        (loss, "projection/reference_loss/", "Reference loss at refreshes", "mean token loss"),
    ):
        names = sorted({key for line in metrics for key in line if key.startswith(prefix)})
        for index, name in enumerate(names):
            line = LINES[index % len(LINES)]
            panel.plot(
                *_series(metrics, name),
                linestyle=line,
                color=INK,
                label=drawing.label(name.removeprefix(prefix), longest=40),
            )
        if prefix.endswith(("conflict/", "leak/")):
            panel.axhline(0, color=QUIET, linewidth=0.8)
        _finish(panel, title, label)
        if not names:
            panel.text(0.5, 0.5, "no refresh in this run", ha="center", va="center", transform=panel.transAxes)
    for panel in axes.flat:
        if panel.get_legend_handles_labels()[0]:
            panel.legend()
    for panel in axes[0]:
        panel.set_xlabel("")
    drawing.save(figure, path, dpi=150)
    return path


def _draw_layers(path: Path, layers: Sequence[tuple[int, str, float]]) -> Path:
    steps = sorted({step for step, _, _ in layers})
    names = list(dict.fromkeys(name for _, name, _ in layers))
    shares = np.full((len(names), len(steps)), np.nan)
    row_of, column_of = {n: i for i, n in enumerate(names)}, {s: i for i, s in enumerate(steps)}
    for step, name, share in layers:
        shares[row_of[name], column_of[step]] = share
    figure = drawing.new_figure(8, min(16, 1.8 + 0.2 * len(names)))
    axes = figure.add_subplot()
    image = axes.imshow(shares, aspect="auto", cmap="Greys", vmin=0, interpolation="nearest")
    every = max(1, len(names) // 60)
    axes.set_yticks(range(0, len(names), every), [drawing.label(_short(name)) for name in names[::every]], fontsize=7)
    shown = np.unique(np.linspace(0, len(steps) - 1, min(8, len(steps))).astype(int))
    axes.set_xticks(shown, [str(steps[index]) for index in shown])
    axes.set_xlabel("step")
    axes.set_title("Share removed by parameter tensor")
    figure.colorbar(image, ax=axes, label="|Pg| / |g|")
    drawing.save(figure, path, dpi=150)
    return path


def _short(name: str) -> str:
    return re.sub(r"^(base_model\.model\.)?(model\.)?(layers\.)?|\.weight$|\.default", "", name)


def _finish(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    drawing.frame(axes, grid=None)
