"""The charts of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from benchmarks.studies.smollm2.plan import Plan
from benchmarks.studies.smollm2.tables import HARMFUL, LOSSES, Point, at, begun
from pipelines import drawing
from pipelines.drawing import COLOURS, INK, LINES, MARKERS
from pipelines.evaluation.contract.results import HARMFUL_COMPLIANCE, OVER_REFUSAL

_TASKS: Final = {"sft": "SFT", "dpo": "DPO", "sft-dpo": "SFT, then DPO"}


def draw_charts(points: Sequence[Point], plan: Plan, folder: Path) -> list[Path]:
    """Draw all charts.

    Args:
        points: what was measured.
        plan: the plan, whose methods give colours and order.
        folder: where the images are written.
    """
    with drawing.style():
        return [
            *drawing.save(_curves(points, plan), folder / "smollm2_curves.png"),
            *drawing.save(_tested(points, plan), folder / "smollm2_test.png"),
        ]


def _curves(points: Sequence[Point], plan: Plan) -> Any:
    """Harmful compliance against over-refusal on the validation side, over the steps of the first seed."""
    tasks = [task for task in _TASKS if any(point.task == task for point in points)]
    figure = drawing.new_figure(3.4 * len(tasks) + 1.9, 3.6)
    origin = next(point for point in points if point.method == "start" and point.side == "validation")
    panels = figure.subplots(1, len(tasks), sharex=True, sharey=True, squeeze=False)[0]
    for task, axes in zip(tasks, panels, strict=True):
        drawing.frame(axes, grid="both")
        for number, method in enumerate(plan.methods):
            ours = [point for point in points if (point.task, point.method) == (task, method)]
            if not ours:
                continue
            seed = min(point.seed for point in ours if point.seed is not None)
            steps = sorted(
                (int(point.name.partition("-")[2]), point)
                for point in ours
                if point.seed == seed and point.name.startswith("step-")
            )
            way = [origin, *(point for _, point in steps)] if task != "sft-dpo" else [point for _, point in steps]
            axes.plot(
                [100 * point.shares(HARMFUL_COMPLIANCE) for point in way],
                [100 * point.shares(OVER_REFUSAL) for point in way],
                color=COLOURS[number % len(COLOURS)], linestyle=LINES[number % len(LINES)], linewidth=1.1,
                marker=MARKERS[number % len(MARKERS)], markersize=4.5, label=drawing.label(method),
                fillstyle=("full", "none")[number // len(COLOURS) % 2],
            )  # fmt: skip
        axes.axvline(100 * plan.target, color=INK, linewidth=0.6, linestyle=":")
        axes.set_title(_TASKS[task])
        axes.set_xlabel("harmful requests answered, %")
        axes.set_xlim(left=-2)
        axes.set_ylim(-2, 102)
    figure.axes[0].set_ylabel("harmless look-alikes refused, %")
    _legend(figure)
    return figure


def _tested(points: Sequence[Point], plan: Plan) -> Any:
    """On the test side, at the chosen points: over-refusal against harmful compliance, and against lost loss."""
    figure = drawing.new_figure(8.6, 3.6)
    left, right = figure.subplots(1, 2, sharey=True)
    origin = begun(points)
    for axes in (left, right):
        drawing.frame(axes, grid="both")
    for number, method in enumerate(("start", *plan.methods)):
        found = [origin] if method == "start" else at(points, "sft", method, "chosen")
        if not found:
            continue
        over = 100 * fmean(point.mean(("safety/xstest-shipped",), OVER_REFUSAL) for point in found)
        complied = 100 * fmean(point.mean(HARMFUL.values(), HARMFUL_COMPLIANCE) for point in found)
        lost = fmean(point.of(suite).value - origin.of(suite).value for point in found for suite in LOSSES.values())
        for axes, x in ((left, complied), (right, lost)):
            axes.plot(
                [x], [over], color=INK if method == "start" else COLOURS[(number - 1) % len(COLOURS)],
                marker="*" if method == "start" else MARKERS[(number - 1) % len(MARKERS)], markersize=7,
                linestyle="none", fillstyle=("full", "none")[(number - 1) // len(COLOURS) % 2],
                label=drawing.label(method),
            )  # fmt: skip
    left.set_xlabel("harmful requests answered, % (three sets)")
    right.set_xlabel("held-out loss above the start, nats (three sets)")
    left.set_ylabel("XSTest's harmless prompts refused, %")
    left.set_ylim(-2, 102)
    _legend(figure)
    return figure


def _legend(figure: Any) -> None:
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside right upper")
