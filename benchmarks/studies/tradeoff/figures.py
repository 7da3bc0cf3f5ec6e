"""Figures of methods over worlds and seeds, at points chosen by one procedure, with intervals over worlds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from scipy import stats

from benchmarks.studies.tradeoff.outcomes import Outcome, Point, Procedure
from benchmarks.studies.tradeoff.plan import Plan, Task

Starts = Mapping[int, Mapping[str, Mapping[str, float]]]
Where = tuple[int, int]
"""World and seed."""
CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Spread:
    """A figure over worlds: each world is the mean over its seeds.

    Attributes:
        mean: the mean over worlds.
        low: the lowest world.
        high: the highest world.
        half: half the width of the 95 % interval of the mean over worlds, by Student's t; None with one world.
        num_runs: runs in all.
        num_worlds: worlds.
    """

    mean: float
    low: float
    high: float
    half: float | None
    num_runs: int
    num_worlds: int


def spread(values: Mapping[Where, float]) -> Spread:
    """The spread of values over worlds; worlds are what varies independently, so that they are the clusters."""
    worlds: dict[int, list[float]] = {}
    for (world, _), value in values.items():
        worlds.setdefault(world, []).append(value)
    means = [statistics.mean(group) for group in worlds.values()]
    half = None
    if len(means) > 1:
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(means) - 1))
        half = quantile * statistics.stdev(means) / sqrt(len(means))
    return Spread(statistics.mean(means), min(means), max(means), half, len(values), len(means))


def runs_of(
    outcomes: Iterable[Outcome], plan: Plan, *, task: Task, references: str, worlds: Sequence[int]
) -> dict[str, dict[Where, Outcome]]:
    """The runs with the chosen rate: method, then world and seed."""
    found: dict[str, dict[Where, Outcome]] = {name: {} for name in plan.methods}
    for outcome in outcomes:
        run = outcome.run
        wanted = (run.task, run.references, run.steps) == (task, references, plan.steps[task]) and run.world in worlds
        if wanted and run.method in found and run.rate == plan.chosen.get(task, {}).get(run.method):
            found[run.method][run.world, run.seed] = outcome
    return {method: runs for method, runs in found.items() if runs}


def at(
    runs: Mapping[Where, Outcome], procedure: Procedure, target: float, figure: Callable[[Point, int], float | None]
) -> dict[Where, float]:
    """A figure of the chosen point of each run, where the point has it.

    Args:
        runs: the runs by world and seed.
        procedure: how the point is chosen.
        target: validation safety, from 0 to 1.
        figure: called with the point and the world.
    """
    found = {where: figure(outcome.chosen(procedure, target)[0], where[0]) for where, outcome in runs.items()}
    return {where: value for where, value in found.items() if value is not None}


def share(name: str, split: str = "test") -> Callable[[Point, int], float | None]:
    """A figure of a split in per cent."""

    def figure(point: Point, world: int) -> float | None:
        value = getattr(point, split).get(name)
        return None if value is None else 100 * float(value)

    return figure


def change(name: str, starts: Starts) -> Callable[[Point, int], float | None]:
    """The change of a figure of the test split from the starting model of the same world, in points."""

    def figure(point: Point, world: int) -> float | None:
        value, start = point.test.get(name), starts[world]["test"].get(name)
        return None if value is None or start is None else 100 * (float(value) - start)

    return figure


def differences(ours: Mapping[Where, float], theirs: Mapping[Where, float]) -> dict[Where, float]:
    """The differences of two methods, pair by pair, in the worlds and seeds that both have."""
    return {where: value - theirs[where] for where, value in ours.items() if where in theirs}


def choose_rates(
    outcomes: Iterable[Outcome], plan: Plan, task: Task, procedure: Procedure, target: float
) -> dict[str, float]:
    """The rate of each method by the validation split, in the worlds of the tuning stages.

    The rate that most often reaches the target comes first, and among equals that with the highest mean of general
    ability minus over-refusal at the chosen point.
    """
    found: dict[str, dict[float, list[tuple[bool, float]]]] = {}
    for outcome in outcomes:
        run = outcome.run
        if (run.task, run.references, run.steps, run.seed) != (task, "complete", plan.steps[task], 0):
            continue
        if run.world in _tuning_worlds(plan, task) and run.rate in _tried(plan, task, run.method):
            point, reached = outcome.chosen(procedure, target)
            worth = point.validation["general"] - point.validation["over_refusal"]
            found.setdefault(run.method, {}).setdefault(run.rate, []).append((reached, worth))
    return {
        method: max(
            rates, key=lambda rate: (sum(r for r, _ in rates[rate]), statistics.mean(w for _, w in rates[rate]))
        )
        for method, rates in found.items()
    }


def _tuning_worlds(plan: Plan, task: Task) -> set[int]:
    return {
        world
        for stage in plan.stages.values()
        if stage.task == task and stage.rates == "tried"
        for world in stage.worlds
    }


def _tried(plan: Plan, task: Task, method: str) -> Sequence[float]:
    if method not in plan.methods:
        return ()
    return plan.methods[method].rates if task == "sft" else plan.methods[method].dpo_rates
