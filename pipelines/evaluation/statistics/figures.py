"""Figures with their intervals, from the scores of items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.evaluation.contract.results import Metric, Unit
from pipelines.evaluation.statistics.intervals import Interval, mean_interval, ratio_interval

Scores = np.ndarray[Any, np.dtype[np.float64]]


def figure(
    name: str,
    value: float,
    interval: Interval | None,
    *,
    num_items: int,
    groups: Sequence[str],
    unit: Unit,
    higher_is_better: bool,
    headline: bool = True,
) -> Metric:
    """A figure with the interval that was found for it; see :class:`Metric` for the arguments."""
    return Metric(
        name=name,
        value=value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        interval=interval.method if interval else None,
        num_items=num_items,
        higher_is_better=higher_is_better,
        unit=unit,
        headline=headline,
        groups=tuple(groups),
    )


def share(name: str, scores: Scores, group: str, *, higher_is_better: bool, resamples: int, seed: int) -> Metric:
    """The share of items that score 1.

    Args:
        name: the name of the figure.
        scores: ``[N]``, 0 or 1 each, at least one.
        group: the group of these items.
        higher_is_better: the direction in which it improves.
        resamples: the number of resamples that the bootstrap draws.
        seed: the seed of the bootstrap.
    """
    interval = mean_interval(scores, resamples=resamples, seed=seed)
    return figure(
        name, float(scores.mean()), interval,
        num_items=len(scores), groups=(group,), unit="share", higher_is_better=higher_is_better,
    )  # fmt: skip


def mean_nats(name: str, values: Scores, group: str, *, higher_is_better: bool, resamples: int, seed: int) -> Metric:
    """The mean of log-probabilities, or of their differences; arguments as for :func:`share`."""
    interval = ratio_interval(values, np.ones_like(values), resamples=resamples, seed=seed)
    return figure(
        name, float(values.mean()), interval,
        num_items=len(values), groups=(group,), unit="nats", higher_is_better=higher_is_better,
    )  # fmt: skip
