"""Two models on the same items: the difference of a figure, with an interval that knows the items are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.contract.answered_items import AnsweredItem
from pipelines.evaluation.contract.results import Metric
from pipelines.evaluation.statistics.flips import paired_items
from pipelines.evaluation.statistics.intervals import Interval, difference_interval, ratio_interval


@dataclass(frozen=True)
class Difference:
    """How much larger a figure is for the second model than for the first.

    Attributes:
        value: second minus first, in the figure's unit.
        interval: of the difference; None where a single item says nothing on it.
        num_items: items that both answered.
    """

    value: float
    interval: Interval | None
    num_items: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out zero: the items show a difference, and its sign."""
        return self.interval is not None and not self.interval.low <= 0.0 <= self.interval.high


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
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: the two were not asked the same items.
    """
    pairs = paired_items(metric, suite, first, second)
    changes = np.array([later.score - earlier.score for earlier, later in pairs])
    if metric.unit == "nats":
        weights = np.array([earlier.weight for earlier, _ in pairs])
        value = float((changes * weights).sum() / weights.sum())
        found = ratio_interval(changes * weights, weights, resamples=resamples, seed=seed)
        return Difference(value, found, len(pairs))
    strata = np.array([metric.groups.index(earlier.group) for earlier, _ in pairs])
    value = float(np.mean([changes[strata == stratum].mean() for stratum in np.unique(strata)]))
    return Difference(value, difference_interval(changes, strata=strata, resamples=resamples, seed=seed), len(pairs))
