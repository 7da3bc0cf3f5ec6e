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
    category: str | None = None,
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
        category=category,
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


def shares_by_category(
    name: str,
    scores: Scores,
    categories: Sequence[str],
    group: str,
    *,
    higher_is_better: bool,
    resamples: int,
    seed: int,
) -> list[Metric]:
    """The share of items that score 1 in each category, as details of a figure: ``NAME/CATEGORY``.

    Args:
        name: the name of the figure that they are details of.
        scores: ``[N]``, 0 or 1 each.
        categories: the category of each item; items whose category is empty are in none.
        group: the group of these items.
        higher_is_better: the direction in which it improves.
        resamples: the number of resamples that the bootstrap would draw; shares have Wilson's interval instead.
        seed: the seed of the bootstrap.
    """
    found = []
    for category in sorted({category for category in categories if category}):
        chosen = scores[np.array([other == category for other in categories])]
        interval = mean_interval(chosen, resamples=resamples, seed=seed)
        found.append(
            figure(
                f"{name}/{category}", float(chosen.mean()), interval,
                num_items=len(chosen), groups=(group,), unit="share", higher_is_better=higher_is_better,
                headline=False, category=category,
            )
        )  # fmt: skip
    return found


def mean_nats(name: str, values: Scores, group: str, *, higher_is_better: bool, resamples: int, seed: int) -> Metric:
    """The mean of log-probabilities, or of their differences; arguments as for :func:`share`."""
    interval = ratio_interval(values, np.ones_like(values), resamples=resamples, seed=seed)
    return figure(
        name, float(values.mean()), interval,
        num_items=len(values), groups=(group,), unit="nats", higher_is_better=higher_is_better,
    )  # fmt: skip
