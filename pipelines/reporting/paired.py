"""Each run against the starting model on the same items: differences, flips and McNemar's test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_registry.core.errors import ArtifactError
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Metric
from pipelines.evaluation.statistics.comparison import Difference, Flips, count_flips, paired_difference, paired_items
from pipelines.reporting.figures import Figure
from pipelines.reporting.runs import Run, check_items


@dataclass(frozen=True)
class Pairs:
    """Items of a figure that two runs both have, in the same order.

    Attributes:
        start: the items as the starting model answered them.
        run: the items as the other run answered them.
        are_all: whether neither run has any other items.
    """

    start: tuple[AnsweredItem, ...]
    run: tuple[AnsweredItem, ...]
    are_all: bool


@dataclass(frozen=True)
class Comparison:
    """One figure of a run against the starting model's.

    Attributes:
        run: the name of the run.
        figure: the figure that is compared.
        raw: the run's value less the starting model's.
        difference: the same over the items that both have, with its interval; None where they were not stored.
        flips: items that changed; None where there are no items, or their scores are not right or wrong.
    """

    run: str
    figure: Figure
    raw: float
    difference: Difference | None
    flips: Flips | None

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or empty where the items show no difference, or none were stored."""
        if self.difference is None or not self.difference.is_shown:
            return ""
        return "better" if (self.difference.value > 0) == self.figure.higher_is_better else "worse"


def compare_with_start(
    runs: Sequence[Run], start: Run, figures: Sequence[Figure], *, resamples: int, seed: int
) -> list[Comparison]:
    """Every figure that a run and the starting model both have.

    Raises:
        ArtifactError: stored items are not those of the figures.
    """
    base = next(index for index, run in enumerate(runs) if run is start)
    found = []
    for index, run in enumerate(runs):
        if run is start:
            continue
        for figure in figures:
            cell, first = figure.cells[index], figure.cells[base]
            if cell is None or first is None:
                continue
            difference = flips = None
            pairs = stored_pairs(figure.suite, first, cell, start, run)
            if pairs is not None:
                both = pairs.start, pairs.run
                difference = paired_difference(cell, figure.suite, *both, resamples=resamples, seed=seed)
                flips = count_flips(cell, figure.suite, *both)
            found.append(Comparison(run.name, figure, cell.value - first.value, difference, flips))
    return found


def stored_pairs(suite: str, first: Metric, second: Metric, start: Run, run: Run) -> Pairs | None:
    """The items that a figure is the mean of, as both answered them; None where they were not stored.

    Args:
        suite: the suite that the figure belongs to.
        first: the starting model's figure.
        second: the other's.
        start: the starting model.
        run: the other.

    Raises:
        ArtifactError: both have items, and they are not the same ones.
    """
    ours, theirs = check_items(start, suite), check_items(run, suite)
    if not (_explains(first, ours) and _explains(second, theirs)):
        return None
    # An answer that could not be judged is in neither figure, so that two runs may lack different ones.
    first_ids, second_ids = (
        {item.id for item in items if first.is_of(item.group, item.category)} for items in (ours, theirs)
    )
    if not first_ids & second_ids:
        raise ArtifactError(
            f"the stored items of '{start.name}' and '{run.name}' are not the same: none of '{second.name}' is on both",
            where=f"{start.sources[0].path} and {run.sources[0].path}",
            fix="evaluate the models again",
        )
    common = first_ids & second_ids
    pairs = paired_items(
        second, suite, [item for item in ours if item.id in common], [item for item in theirs if item.id in common]
    )
    return Pairs(tuple(earlier for earlier, _ in pairs), tuple(later for _, later in pairs), first_ids == second_ids)


def _explains(metric: Metric, items: Sequence[AnsweredItem]) -> bool:
    """Whether a figure is the mean of stored scores: some are of something that the items do not hold."""
    groups: dict[str, list[AnsweredItem]] = {}
    for item in items:
        if metric.is_of(item.group, item.category):
            groups.setdefault(item.group, []).append(item)
    if groups.keys() != set(metric.groups):
        return False
    everything = [item for group in groups.values() for item in group]
    if metric.unit == "nats":
        found = sum(item.score * item.weight for item in everything) / sum(item.weight for item in everything)
    else:
        found = float(np.mean([np.mean([item.score for item in group]) for group in groups.values()]))
    return math.isclose(found, metric.value, rel_tol=1e-6, abs_tol=1e-9)
