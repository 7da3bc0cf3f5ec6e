"""Each run against the starting model on the same items: differences, flips and McNemar's test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_registry.core.errors import ArtifactError
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Metric
from pipelines.evaluation.statistics.comparison import Difference, Flips, difference_of_pairs, flips_of_pairs
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
        """``better`` or ``worse``; empty where the items show no difference, or none were stored.

        Figures that have no better side are said to differ.
        """
        if self.difference is None or not self.difference.is_shown:
            return ""
        if self.figure.better is None:
            return "differs"
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
                both = list(zip(pairs.start, pairs.run, strict=True))
                difference = difference_of_pairs(cell, both, resamples=resamples, seed=seed)
                flips = flips_of_pairs(both)
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
    ours, theirs = _items_behind(start, suite, first), _items_behind(run, suite, second)
    if ours is None or theirs is None:
        return None
    # An answer that could not be judged is in neither figure, so that two runs may lack different ones.
    common = [name for name in ours if name in theirs]
    if not common:
        raise ArtifactError(
            f"the stored items of '{start.name}' and '{run.name}' are not the same: none of '{second.name}' is on both",
            where=f"{start.sources[0].path} and {run.sources[0].path}",
            fix="evaluate the models again",
        )
    return Pairs(
        tuple(ours[name] for name in common),
        tuple(theirs[name] for name in common),
        len(common) == len(ours) == len(theirs),
    )


def _items_behind(run: Run, suite: str, metric: Metric) -> dict[str, AnsweredItem] | None:
    """The items by id that a figure is the mean of; None where the stored scores do not explain it.

    The starting model's are asked for by every other run, and so they are looked for once.
    """
    key = (suite, metric)
    if key not in run.behind:
        items = check_items(run, suite)
        groups: dict[str, list[AnsweredItem]] = {}
        for item in items:
            if metric.is_of(item.group, item.category):
                groups.setdefault(item.group, []).append(item)
        found = {item.id: item for item in items if item.group in groups and metric.is_of(item.group, item.category)}
        run.behind[key] = found if _explains(metric, groups) else None
    return run.behind[key]


def _explains(metric: Metric, groups: Mapping[str, Sequence[AnsweredItem]]) -> bool:
    """Whether a figure is the mean of stored scores: some are of something that the items do not hold."""
    if groups.keys() != set(metric.groups):
        return False
    everything = [item for group in groups.values() for item in group]
    if metric.unit == "nats":
        found = sum(item.score * item.weight for item in everything) / sum(item.weight for item in everything)
    else:
        found = float(np.mean([np.mean([item.score for item in group]) for group in groups.values()]))
    return math.isclose(found, metric.value, rel_tol=1e-6, abs_tol=1e-9)
