"""Figures with their intervals, from the scores of items."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.evaluation.contract.results import Metric
from pipelines.evaluation.statistics.intervals import mean_interval, ratio_interval

Scores = np.ndarray[Any, np.dtype[np.float64]]


def share(name: str, scores: Scores, group: str, *, higher_is_better: bool, resamples: int, seed: int) -> Metric:
    """The share of items that score 1.

    Args:
        name: of the figure.
        scores: ``[N]``, 0 or 1 each, at least one.
        group: of these items.
        higher_is_better: the direction in which it improves.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    interval = mean_interval(scores, resamples=resamples, seed=seed)
    return Metric(
        name=name,
        value=float(scores.mean()),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        interval=interval.method if interval else None,
        num_items=len(scores),
        higher_is_better=higher_is_better,
        unit="share",
        groups=(group,),
    )


def mean_nats(name: str, values: Scores, group: str, *, higher_is_better: bool, resamples: int, seed: int) -> Metric:
    """The mean of log-probabilities, or of their differences; arguments as for :func:`share`."""
    interval = ratio_interval(values, np.ones_like(values), resamples=resamples, seed=seed)
    return Metric(
        name=name,
        value=float(values.mean()),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        interval=interval.method if interval else None,
        num_items=len(values),
        higher_is_better=higher_is_better,
        unit="nats",
        groups=(group,),
    )
