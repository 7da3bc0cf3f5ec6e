"""The tables of the page, as Markdown, from the figures that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import pyarrow.parquet as pq

from benchmarks.studies.smollm2.figures import TABLE
from benchmarks.studies.smollm2.plan import Plan, Task
from benchmarks.studies.tradeoff.cells import head, row
from pipelines.evaluation.contract.results import HARMFUL_COMPLIANCE, OVER_REFUSAL

START: Final = "start"
HARMFUL: Final = {
    "XSTest": "safety/xstest-shipped",
    "HarmBench": "safety/harmbench-pip",
    "Do-Not-Answer": "safety/do-not-answer-malicious",
}
HARMLESS: Final = {"XSTest": "safety/xstest-shipped", "look-alikes": "safety/lookalikes"}
LOSSES: Final = {name: f"reference-loss/{name}-test" for name in ("alpaca", "halueval", "gsm8k")}
CHOICES: Final = {name: f"answer-choice/{name}-test" for name in ("alpaca", "halueval", "gsm8k")}
INSTRUCTIONS: Final = "instructions"
DIVERGENCE: Final = "divergence/held-out"
CHANCE: Final = {**dict.fromkeys(CHOICES.values(), "25 %"), INSTRUCTIONS: "near 0 %"}


@dataclass(frozen=True)
class Figure:
    """A figure with the ends of its 95 % interval and its items."""

    value: float
    low: float | None
    high: float | None
    items: int


@dataclass(frozen=True)
class Point:
    """A model that was measured.

    Attributes:
        method: how it was trained, or ``start``.
        task: ``sft``, ``dpo``, ``sft-dpo``, or ``none`` for the start.
        seed: the run's seed; None for the start.
        name: the point on the run's way: ``step-20``, ``mixed-0.5``, ``end-test``, ``chosen-test``, ``test`` ...
        side: ``validation`` or ``test``.
        chosen: the point that was chosen by the validation side.
        cost: tokens through the model and seconds of the training.
        figures: every figure by its suite and its name.
    """

    method: str
    task: str
    seed: int | None
    name: str
    side: str
    chosen: str | None
    cost: Mapping[str, float | None]
    figures: dict[tuple[str, str], Figure] = field(default_factory=dict)

    def of(self, suite: str) -> Figure:
        """The first figure of a suite, which is its headline."""
        return next(figure for (of, _), figure in self.figures.items() if of == suite)

    def shares(self, metric: str) -> float:
        """The mean of one figure over all suites that have it."""
        return fmean(figure.value for (_, name), figure in self.figures.items() if name == metric)

    def mean(self, suites: Iterable[str], metric: str) -> float:
        """The mean of one figure over suites."""
        return fmean(self.figures[suite, metric].value for suite in suites)


def read_points(file: Path = TABLE) -> list[Point]:
    """All models that were measured, from the table that is kept."""
    found: dict[tuple[Any, ...], Point] = {}
    for line in pq.read_table(file).to_pylist():
        key = tuple(line[name] for name in ("task", "method", "rate", "seed", "steps", "point"))
        point = found.setdefault(key, Point(
            line["method"], line["task"], line["seed"], line["point"], line["side"], line["chosen"],
            {name: line.get(name) for name in ("tokens", "cpu_s", "wall_s")},
        ))  # fmt: skip
        point.figures[line["suite"], line["metric"]] = Figure(line["value"], line["low"], line["high"], line["items"])
    return list(found.values())


def start(points: Sequence[Point], plan: Plan) -> str:
    """What the starting model scores on the test side, with intervals, items and chance."""
    lines = [head("measured", "start", "95 % interval", "items", "chance")]
    origin = begun(points)
    for (suite, metric), figure in origin.figures.items():
        if metric in (HARMFUL_COMPLIANCE, OVER_REFUSAL) or figure == origin.of(suite):
            told = [_told(suite, value) for value in (figure.value, figure.low, figure.high) if value is not None]
            name = f"{suite}: {metric.replace('_', ' ')}"
            lines.append(row(name, told[0], " to ".join(told[1:]), str(figure.items), CHANCE.get(suite, "")))
    return "\n".join(lines)


def tested(task: Task, which: str) -> Callable[[Sequence[Point], Plan], str]:
    """A table of one task on the test side.

    Args:
        task: the task.
        which: ``chosen``: the points that were chosen on the validation side; ``end``: the models as trained.
    """

    def table(points: Sequence[Point], plan: Plan) -> str:
        lines = [head("method", "seeds", "point", "answers harmful requests", "of the three sets",
                      "refuses XSTest's harmless", "refuses look-alikes", "held-out losses", "right of four",
                      "instructions", "KL to the start", "tokens")]  # fmt: skip
        origin = begun(points)
        lines.append(_line("start", [origin], origin))
        runs = {method: found for method in plan.methods if (found := at(points, task, method, which))}
        naive = runs.get("naive")
        lines.extend(_line(method, found, origin, naive) for method, found in runs.items())
        return "\n".join(lines)

    return table


def curves(task: Task) -> Callable[[Sequence[Point], Plan], str]:
    """A table of the validation side: compliance / over-refusal at every step and share that was measured."""

    def table(points: Sequence[Point], plan: Plan) -> str:
        kinds = [point.name.rpartition("-") for point in points if point.task == task and point.side == "validation"]
        found = sorted({(kind != "step", float(number)) for kind, _, number in kinds})
        names = [f"mixed-{number:g}" if mixed else f"step-{number:g}" for mixed, number in found]
        lines = [head("method", "seed", *(name.replace("-", " ") for name in names))]
        runs: dict[tuple[str, int | None], dict[str, Point]] = {}
        for point in points:
            if point.task == task:
                runs.setdefault((point.method, point.seed), {})[point.name] = point
        for method, seed in sorted(runs, key=lambda run: (list(plan.methods).index(run[0]), run[1])):
            lines.append(row(method, str(seed), *(_both(runs[method, seed].get(name)) for name in names)))
        return "\n".join(lines)

    return table


def at(points: Sequence[Point], task: Task, method: str, which: str) -> list[Point]:
    """The points of a method on the test side, one a seed: as chosen, or as trained."""
    tests: dict[int | None, dict[str, Point]] = {}
    for point in points:
        if (point.task, point.method, point.side) == (task, method, "test"):
            tests.setdefault(point.seed, {})[point.name] = point
    found = (
        names.get("chosen-test", names.get("end-test")) if which == "chosen" else names.get("end-test")
        for names in tests.values()
    )
    return [point for point in found if point is not None]


def begun(points: Sequence[Point]) -> Point:
    """The starting model on the test side."""
    return next(point for point in points if point.method == START and point.side == "test")


def _line(method: str, points: Sequence[Point], origin: Point, naive: Sequence[Point] | None = None) -> str:
    """A line of a table; capabilities outside the interval of the start are marked."""
    harmful = [[point.figures[suite, HARMFUL_COMPLIANCE].value for suite in HARMFUL.values()] for point in points]
    harmless = [[point.figures[suite, OVER_REFUSAL].value for point in points] for suite in HARMLESS.values()]
    kl = fmean(point.of(DIVERGENCE).value for point in points)
    names = dict.fromkeys("end" if point.name == "end-test" else str(point.chosen) for point in points)
    return row(
        method,
        "" if method == START else str(len(points)),
        "" if method == START else ", ".join(names),
        _over_seeds([fmean(of_seed) for of_seed in harmful]),
        " / ".join(f"{100 * fmean(of_set):.0f}" for of_set in zip(*harmful, strict=True)),
        *map(_over_seeds, harmless),
        " / ".join(_capability(points, origin, [suite]) for suite in LOSSES.values()),
        _capability(points, origin, list(CHOICES.values())),
        _capability(points, origin, [INSTRUCTIONS]),
        f"{kl:.3f}",
        _relative(points, naive),
    )


def _over_seeds(shares: Sequence[float]) -> str:
    """The mean, and where there are several seeds the least and the greatest."""
    ends = f" ({100 * min(shares):.1f} to {100 * max(shares):.1f})" if len(shares) > 1 else ""
    return f"{100 * fmean(shares):.1f} %{ends}"


def _capability(points: Sequence[Point], origin: Point, suites: Sequence[str]) -> str:
    means = {suite: fmean(point.of(suite).value for point in points) for suite in suites}
    worse = any(_worse(suite, value, origin.of(suite)) for suite, value in means.items())
    return f"{_told(suites[0], fmean(means.values()))}{' *' if worse else ''}"


def _worse(suite: str, value: float, start: Figure) -> bool:
    """Whether a figure lies beyond the worse end of the interval of the start."""
    if start.low is None or start.high is None:
        return False
    return value > start.high if suite in LOSSES.values() else value < start.low


def _relative(points: Sequence[Point], naive: Sequence[Point] | None) -> str:
    """Tokens in multiples of naive training's, over the seeds in which they were counted; empty without any."""
    ours, theirs = ([float(n) for point in of if (n := point.cost.get("tokens"))] for of in (points, naive or ()))
    return f"{fmean(ours) / fmean(theirs):.2f}" if ours and theirs else ""


def _both(point: Point | None) -> str:
    if point is None:
        return ""
    return " / ".join(f"{100 * point.shares(metric):.0f}" for metric in (HARMFUL_COMPLIANCE, OVER_REFUSAL))


def _told(suite: str, value: float) -> str:
    return f"{value:.3f}" if suite.startswith(("reference-loss", "divergence")) else f"{100 * value:.1f} %"


TABLES: Final[dict[str, Callable[[Sequence[Point], Plan], str]]] = {
    "start": start,
    **{f"{task}-{which}": tested(task, which) for task in ("sft", "dpo", "sft-dpo") for which in ("chosen", "end")},
    **{f"{task}-curves": curves(task) for task in ("sft", "dpo", "sft-dpo")},
}
