"""Two models on the same items: the difference of a figure, the items that changed, and whether that may be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Metric
from pipelines.evaluation.statistics.intervals import Interval, difference_interval, ratio_interval


@dataclass(frozen=True)
class Difference:
    """How much larger a figure is for the second model than for the first.

    Attributes:
        value: second minus first, in the figure's unit.
        interval: the interval of the difference; None where a single item says nothing on it.
        num_items: items that both answered.
    """

    value: float
    interval: Interval | None
    num_items: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out zero: the items show a difference, and its sign."""
        return self.interval is not None and not self.interval.low <= 0.0 <= self.interval.high


@dataclass(frozen=True)
class Flips:
    """Items that one model got and the other did not.

    Attributes:
        gained: items whose score went from 0 to 1.
        lost: items whose score went from 1 to 0.
        num_items: items that both were asked.
        p_value: the p-value of McNemar's exact test; 1 where nothing changed.
    """

    gained: int
    lost: int
    num_items: int
    p_value: float


def paired_items(
    metric: Metric, suite: str, first: Sequence[AnsweredItem], second: Sequence[AnsweredItem]
) -> list[tuple[AnsweredItem, AnsweredItem]]:
    """The items that a figure is a mean over, as two models answered them, in the first one's order.

    Raises:
        ValueError: the two were not asked the same items.
    """
    ours, theirs = (
        {item.id: item for item in items if item.suite == suite and metric.is_of(item.group, item.category)}
        for items in (first, second)
    )
    if ours.keys() != theirs.keys() or not ours:
        raise ValueError(f"{suite}: the two models were not asked the same items for '{metric.name}'")
    return [(item, theirs[name]) for name, item in ours.items()]


def paired_difference(
    metric: Metric,
    suite: str,
    first: Sequence[AnsweredItem],
    second: Sequence[AnsweredItem],
    *,
    resamples: int,
    seed: int,
) -> Difference:
    """The difference of a figure between two models, item by item.

    Resampling pairs leaves out the spread that comes from the items being easy or hard for both, so that the interval
    is narrower than two separate ones suggest.

    Args:
        metric: the figure, of either model: its groups say which items it is a mean over.
        suite: the suite that it belongs to.
        first: items of the one model.
        second: items of the other.
        resamples: the number of resamples that the bootstrap draws.
        seed: the seed of the bootstrap.

    Raises:
        ValueError: the two were not asked the same items.
    """
    return difference_of_pairs(metric, paired_items(metric, suite, first, second), resamples=resamples, seed=seed)


def difference_of_pairs(
    metric: Metric, pairs: Sequence[tuple[AnsweredItem, AnsweredItem]], *, resamples: int, seed: int
) -> Difference:
    """As :func:`paired_difference`, of items that are in pairs already: all that the figure is a mean over."""
    changes = np.array([later.score - earlier.score for earlier, later in pairs])
    if metric.unit == "nats":
        weights = np.array([earlier.weight for earlier, _ in pairs])
        value = float((changes * weights).sum() / weights.sum())
        found = ratio_interval(changes * weights, weights, resamples=resamples, seed=seed)
        return Difference(value, found, len(pairs))
    strata = np.array([metric.groups.index(earlier.group) for earlier, _ in pairs])
    value = float(np.mean([changes[strata == stratum].mean() for stratum in np.unique(strata)]))
    return Difference(value, difference_interval(changes, strata=strata, resamples=resamples, seed=seed), len(pairs))


def count_flips(
    metric: Metric, suite: str, first: Sequence[AnsweredItem], second: Sequence[AnsweredItem]
) -> Flips | None:
    """Flips from the first model to the second; None where scores are not all 0 or 1 (losses, graded answers).

    Raises:
        ValueError: the two were not asked the same items.
    """
    return flips_of_pairs(paired_items(metric, suite, first, second))


def flips_of_pairs(items: Sequence[tuple[AnsweredItem, AnsweredItem]]) -> Flips | None:
    """As :func:`count_flips`, of items that are in pairs already."""
    pairs = [(earlier.score, later.score) for earlier, later in items]
    if any(score not in (0.0, 1.0) for pair in pairs for score in pair):
        return None
    gained, lost = pairs.count((0.0, 1.0)), pairs.count((1.0, 0.0))
    return Flips(gained, lost, len(pairs), mcnemar(gained, lost))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test: that of a fair coin for the items that changed.

    Args:
        gained: items that changed one way.
        lost: items that changed the other way.

    Raises:
        ValueError: a count is negative.

    Source:
        Q. McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12
        (1947), in the exact form, which needs no large numbers.
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"numbers of items cannot be negative: {gained}, {lost}")
    if gained + lost == 0:
        return 1.0
    from scipy.special import bdtr

    # Both tails of a fair coin are alike. binomtest says the same, and a report on many runs asks for thousands.
    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))
