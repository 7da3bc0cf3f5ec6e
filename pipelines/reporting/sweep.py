"""A sweep of mixes: safety, over-refusal and capability against the share of the fine-tuned model, and a choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pipelines import drawing
from pipelines.core.escaping import markdown_row, markdown_text
from pipelines.drawing import COLOURS, INK, LINES, MARKERS, QUIET
from pipelines.evaluation.contract.results import Metric, Results
from pipelines.reporting.figures import role_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE_FILE, TABLE_FILE, PLOT_FILE = "curve.parquet", "curve.md", "curve.png"
_TITLES = {"safety": "safe %", "over-refusal": "over-refusal %", "capability": "capability %"}


@dataclass(frozen=True)
class SweepPoint:
    """What was measured at one share.

    Attributes:
        share: the share of the fine-tuned model.
        safety: the lowest of the suites' safety figures, from 0 to 1; None where no suite measures it.
        over_refusal: the mean of their figures of over-refusal, from 0 to 1.
        capability: the mean of their shares of capability, from 0 to 1.
        losses: every loss by suite and name, in nats.
    """

    share: float
    safety: float | None
    over_refusal: float | None
    capability: float | None
    losses: dict[str, float]

    def values(self) -> dict[str, float | None]:
        """The three shares by role."""
        return {"safety": self.safety, "over-refusal": self.over_refusal, "capability": self.capability}


def sweep_points(shares: Sequence[float], results: Sequence[Results]) -> list[SweepPoint]:
    """The points of a sweep, in order of the shares."""
    points = []
    for share, found in sorted(zip(shares, results, strict=True), key=lambda pair: pair[0]):
        by_role: dict[str, list[float]] = {}
        losses = {}
        for suite in found.suites:
            for metric in suite.metrics:
                role = role_of(suite.suite, metric)
                if role == "loss":
                    losses[f"{suite.suite}:{metric.name}"] = metric.value
                elif metric.unit == "share" and metric.headline:
                    by_role.setdefault(role, []).append(_as_safety(metric) if role == "safety" else metric.value)
        safety, refusals, abilities = (by_role.get(role, []) for role in _TITLES)
        points.append(
            SweepPoint(
                share,
                min(safety) if safety else None,
                fmean(refusals) if refusals else None,
                fmean(abilities) if abilities else None,
                losses,
            )
        )
    return points


def _as_safety(metric: Metric) -> float:
    return metric.value if metric.higher_is_better else 1 - metric.value


def choose(points: Sequence[SweepPoint], safe_at_least: float) -> SweepPoint | None:
    """The point of the smallest share from which on all are safe enough; None where not even the largest share is.

    One lucky share below others that are not safe enough is not taken.

    Args:
        points: the points in order of their shares.
        safe_at_least: the lowest safety that is enough, from 0 to 1.
    """
    chosen = None
    for point in reversed(points):
        if point.safety is None or point.safety < safe_at_least:
            break
        chosen = point
    return chosen


def table_lines(points: Sequence[SweepPoint], chosen: SweepPoint | None) -> list[list[str]]:
    """The table as rows of cells, the heading first; the chosen share is marked."""
    roles = [role for role in _TITLES if any(point.values()[role] is not None for point in points)]
    losses = list(dict.fromkeys(name for point in points for name in point.losses))
    rows = [["share", *(_TITLES[role] for role in roles), *losses, ""]]
    for point in points:
        shares = [point.values()[role] for role in roles]
        cells = ["" if value is None else f"{100 * value:.1f}" for value in shares]
        cells += [f"{point.losses[name]:.4f}" if name in point.losses else "" for name in losses]
        rows.append([f"{point.share:g}", *cells, "chosen" if point is chosen else ""])
    return rows


def write_curve(
    folder: Path,
    points: Sequence[SweepPoint],
    chosen: SweepPoint | None,
    results: Sequence[Results],
    words: Sequence[str],
) -> None:
    """Write every figure as Parquet, and the table as Markdown.

    Args:
        folder: where the files go.
        points: the points of the sweep.
        chosen: the point that is chosen, if one is.
        results: all figures, one entry for each share.
        words: what was chosen and how, each a paragraph below the table.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows: list[dict[str, Any]] = [
        {
            "mix": found.run, "suite": suite.suite, "split": suite.settings.split,
            "role": role_of(suite.suite, metric), **metric.model_dump(exclude={"groups"}),
        }
        for found in results for suite in found.suites for metric in suite.metrics
    ]  # fmt: skip
    parquet.write_table(pa.Table.from_pylist(rows), folder / CURVE_FILE, compression="zstd")
    heading, *body = table_lines(points, chosen)
    rule = f"| --- | {' | '.join(['---:'] * (len(heading) - 1))} |\n"
    table = "".join([markdown_row(heading), rule, *map(markdown_row, body)])
    (folder / TABLE_FILE).write_text("\n\n".join([table.rstrip(), *map(markdown_text, words)]) + "\n", encoding="utf-8")


def draw_curve(path: Path, points: Sequence[SweepPoint], chosen: SweepPoint | None, safe_at_least: float) -> None:
    """Draw the three shares in per cent over the share of the fine-tuned model; a line marks the chosen one."""
    with drawing.style():
        figure = drawing.new_figure(5.6, 3.8)
        axes: Axes = figure.add_subplot()
        for index, (role, title) in enumerate(_TITLES.items()):
            known = [(point.share, 100 * value) for point in points if (value := point.values()[role]) is not None]
            if known:
                axes.plot(
                    *zip(*known, strict=True), color=COLOURS[index], marker=MARKERS[index], linestyle=LINES[index],
                    markersize=5, label=title.removesuffix(" %"),
                )  # fmt: skip
        axes.axhline(100 * safe_at_least, color=QUIET, linewidth=0.8, linestyle=":")
        if chosen is not None:
            axes.axvline(chosen.share, color=INK, linewidth=0.8)
        axes.set_ylim(-3, 103)
        axes.set_xlabel("share of the fine-tuned model")
        axes.set_ylabel("%")
        drawing.frame(axes)
        figure.legend(loc="outside upper center", ncols=3)
        drawing.save(figure, path, dpi=160)
