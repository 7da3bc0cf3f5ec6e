"""The charts of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.studies.allo.results import Results
from benchmarks.studies.allo.tables import TARGET
from benchmarks.studies.tradeoff.figures import at, share, spread
from benchmarks.studies.tradeoff.plan import Task
from pipelines import drawing
from pipelines.drawing import COLOURS, HATCHES, INK, MARKERS

_TITLES: Final = {"sft": "SFT from the base model", "dpo": "DPO after some refusals"}


def draw_charts(results: Results, folder: Path) -> list[Path]:
    """Draw all charts for which there are results.

    Args:
        results: the results.
        folder: where the images are written.
    """
    with drawing.style():
        return [
            *drawing.save(_matched(results), folder / "allo_matched.png"),
            *(drawing.save(_tokens(results), folder / "allo_tokens.png") if results.tokens else []),
        ]


def _matched(results: Results) -> Any:
    """Over-refusal and general ability of each arm at equal safety, bars from the lowest to the highest run."""
    tasks: list[Task] = [task for task in _TITLES if results.runs(task)]
    figure = drawing.new_figure(3.6 * len(tasks) + 1.4, 3.6)
    arms = [arm for arm in results.plan.methods if any(arm in results.runs(task) for task in tasks)]
    for task, axes in zip(tasks, figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0], strict=True):
        drawing.frame(axes, grid="both")
        for arm, runs in results.runs(task).items():
            reached = {where: one for where, one in runs.items() if one.chosen("mixed", TARGET)[1]}
            if not reached:
                continue
            over, general = (at(reached, "mixed", TARGET, share(name)) for name in ("over_refusal", "general"))
            number = arms.index(arm)
            x, y = spread(over).mean, spread(general).mean
            axes.errorbar(
                x, y, xerr=_ends(x, list(over.values())), yerr=_ends(y, list(general.values())),
                color=COLOURS[number % len(COLOURS)], elinewidth=0.6, marker=MARKERS[number % len(MARKERS)],
                markersize=6, linestyle="none", markerfacecoloralt="white",
                fillstyle=("full", "none", "left")[number // len(COLOURS) % 3], label=drawing.label(arm),
            )  # fmt: skip
        axes.set_title(_TITLES[task])
        axes.set_xlabel("harmless look-alikes refused, %")
    figure.axes[0].set_ylabel("general ability, %")
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside right upper")
    return figure


def _tokens(results: Results) -> Any:
    """The rewriter's probability of wrong tokens and of the others, all worlds together."""
    figure = drawing.new_figure(5.2, 2.8)
    axes = figure.add_subplot()
    drawing.frame(axes)
    wrong, probability = (np.concatenate([each[number] for each in results.tokens.values()]) for number in (1, 2))
    bins = np.linspace(0, 1, 11)
    for chosen, shift, colour, hatch, label in (
        (wrong, -0.2, COLOURS[1], HATCHES[0], "tokens that are wrong"),
        (~wrong, 0.2, COLOURS[0], HATCHES[1], "tokens that are right"),
    ):
        counts, _ = np.histogram(probability[chosen], bins)
        axes.bar(np.arange(10) + shift, 100 * counts / chosen.sum(), 0.38, color=colour, edgecolor=INK, linewidth=0.4,
                 hatch=hatch, label=label)  # fmt: skip
    axes.set_xticks(np.arange(11) - 0.5, labels=[f"{edge:.1f}" for edge in bins])
    axes.set_xlabel("probability by the rewriter")
    axes.set_ylabel("share of these tokens, %")
    axes.legend(loc="upper center")
    return figure


def _ends(mean: float, values: list[float]) -> list[list[float]]:
    return [[mean - min(values)], [max(values) - mean]]
