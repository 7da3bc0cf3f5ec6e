"""The charts of the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.studies.tradeoff.figures import at, change, share, spread
from benchmarks.studies.tradeoff.tables import ALL_GAPS, FRONTIER, MAIN, TARGET, WORLDS, Results
from pipelines import drawing
from pipelines.drawing import COLOURS, HATCHES, INK, LINES, MARKERS, QUIET

_COMPARABLE: Final = 97
"""Test safety in per cent below which a method is not comparable with the others."""
_TARGETS: Final = (0.95, 0.97, 0.98, TARGET, 0.99, 1.0)


def draw_charts(results: Results, folder: Path) -> list[Path]:
    """Draw all charts for which there are results.

    Args:
        results: the results.
        folder: where the images are written.
    """
    with drawing.style():
        return [
            *drawing.save(_matched(results), folder / "tradeoff_matched.png"),
            *drawing.save(_frontier(results), folder / "tradeoff_frontier.png"),
            *drawing.save(_gaps(results), folder / "tradeoff_gaps.png"),
        ]


def _matched(results: Results) -> Any:
    """Over-refusal against the change of general ability at matched safety, one point a method, complete references."""
    figure = drawing.new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    drawing.frame(axes, grid="both")
    safe_enough = {
        method: runs for method, runs in results.runs("sft").items()
        if len({world for world, _ in runs}) > 2
        and spread(at(runs, "mixed", TARGET, share("safe"))).mean >= _COMPARABLE
    }  # fmt: skip
    for number, (method, runs) in enumerate(safe_enough.items()):
        over = spread(at(runs, "mixed", TARGET, share("over_refusal")))
        general = spread(at(runs, "mixed", TARGET, change("general", results.starts)))
        colour = COLOURS[number % len(COLOURS)]
        axes.errorbar(
            over.mean, general.mean, xerr=[[over.mean - over.low], [over.high - over.mean]],
            yerr=[[general.mean - general.low], [general.high - general.mean]], color=colour, ecolor=colour,
            elinewidth=0.6, marker=MARKERS[number % len(MARKERS)], markersize=6, linestyle="none",
            markerfacecoloralt="white", fillstyle=("full", "none", "left")[number // len(COLOURS) % 3],
            label=drawing.label(method),
        )  # fmt: skip
    axes.axvline(2, color=QUIET, linewidth=0.7, linestyle=":")
    axes.axhline(-0.5, color=QUIET, linewidth=0.7, linestyle=":")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=-0.1, right=100)
    axes.set_xticks([0, 1, 2, 5, 10, 20, 50], labels=["0", "1", "2", "5", "10", "20", "50"])
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(-100, 0.1)
    axes.set_yticks([-50, -20, -10, -5, -2, -1, 0], labels=["-50", "-20", "-10", "-5", "-2", "-1", "0"])
    axes.set_xlabel("harmless look-alikes refused, %")
    axes.set_ylabel("general ability, change from the start in points")
    figure.legend(loc="outside right upper")
    return figure


def _frontier(results: Results) -> Any:
    """General ability and over-refusal against test safety, a point for each validation target."""
    figure = drawing.new_figure(7.4, 3.4)
    left, right = figure.subplots(1, 2)
    runs = results.runs("sft")
    for axes, name, label in (
        (left, "general", "general ability, change in points"),
        (right, "over_refusal", "look-alikes refused, %"),
    ):
        drawing.frame(axes, grid="both")
        for number, method in enumerate(method for method in FRONTIER if method in runs):
            figure_of = change(name, results.starts) if name == "general" else share(name)
            safe, values = (
                [spread(at(runs[method], "mixed", target, of)).mean for target in _TARGETS]
                for of in (share("safe"), figure_of)
            )
            axes.plot(
                safe, values, color=COLOURS[number], marker=MARKERS[number], markersize=4, linestyle=LINES[number],
                linewidth=1.1, label=drawing.label(method),
            )  # fmt: skip
        axes.set_xlabel("harmful requests refused, %")
        axes.set_ylabel(label)
    right.set_yscale("symlog", linthresh=1)
    right.set_ylim(bottom=0)
    right.set_yticks([0, 1, 2, 5, 10, 20, 50], labels=["0", "1", "2", "5", "10", "20", "50"])
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=7)
    return figure


def _gaps(results: Results) -> Any:
    """Damage under references of all kinds: bars for over-refusal above, for general ability below."""
    results = results.within(WORLDS)
    # Where one method was run there is nothing to compare.
    names = [name for name in ALL_GAPS if len(results.runs("sft", name)) > 1]
    methods = [method for method in MAIN if any(method in results.runs("sft", name) for name in names)]
    figure = drawing.new_figure(7.6, 5.0)
    above, below = figure.subplots(2, 1, sharex=True)
    width = 0.8 / max(1, len(methods))
    for axes, name, label in (
        (above, "over_refusal", "look-alikes refused, %"),
        (below, "general", "general ability, change in points"),
    ):
        drawing.frame(axes)
        for number, method in enumerate(methods):
            values = [_mean(results, reference, method, name) for reference in names]
            places = [index + (number - (len(methods) - 1) / 2) * width for index in range(len(names))]
            axes.bar(
                places, values, width, color=COLOURS[number], edgecolor=INK, linewidth=0.4, hatch=HATCHES[number],
                label=drawing.label(method),
            )  # fmt: skip
            # No bar would read as nothing lost.
            for place in (place for place, value in zip(places, values, strict=True) if math.isnan(value)):
                axes.annotate("not run", (place, 0), (0, 3 if axes is above else -3), textcoords="offset points",
                              rotation=90, fontsize=5.5, color=QUIET, ha="center",
                              va="bottom" if axes is above else "top")  # fmt: skip
        axes.set_ylabel(label)
    below.set_xticks(range(len(names)), labels=[drawing.label(name) for name in names], rotation=15)
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=7)
    return figure


def _mean(results: Results, references: str, method: str, name: str) -> float:
    runs = results.runs("sft", references).get(method, {})
    figure = change(name, results.starts) if name == "general" else share(name)
    values: Sequence[float] = list(at(runs, "mixed", TARGET, figure).values())
    return statistics.mean(values) if values else float("nan")
