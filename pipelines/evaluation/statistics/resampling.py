"""The bootstrap of a smooth function of means over items: resamples, and intervals from them.

Shapes: N items of a pool, R distinct outcomes among them, C figures of an item, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

_CHUNK_ELEMENTS = 1 << 20
_NORMAL = NormalDist()
# The statistic may be missing (a quotient by zero) in as many resamples as move no end by much.
_EXISTING = 0.99
# Equal items need not have exactly their value as their mean. Below this share of what was added up, a difference is
# no spread.
_SPECK = 1e-12


@dataclass(frozen=True)
class Pool:
    """Items that are drawn from together.

    Attributes:
        outcomes: ``[R, C]`` what items came to, each once.
        counts: ``[R]`` how many items came to it; a part of one where it was supposed and not seen.
        num_items: items that were seen, and of each resample.
    """

    outcomes: Array
    counts: Array
    num_items: int

    @property
    def has_supposed(self) -> bool:
        """Whether there are items that were not seen."""
        return bool(self.counts.sum() > self.num_items)

    @property
    def means(self) -> Array:
        """``[C]``, supposed items included."""
        return sums(self.counts, self.outcomes) / self.counts.sum()

    def influence(self, gradient: Array) -> Array:
        """``[R]`` of one item each, on a function of the means with this gradient ``[C]``."""
        found = (self.outcomes - self.means) @ gradient
        found[np.abs(found) <= _SPECK * (np.abs(self.outcomes) @ np.abs(gradient))] = 0.0
        return found / self.counts.sum()

    def draw(self, generator: np.random.Generator, resamples: int) -> Iterator[Array]:
        """How often resamples hold each outcome, ``[chunk, R]`` at a time."""
        chunk = max(1, _CHUNK_ELEMENTS // len(self.counts))
        shares = self.counts / self.counts.sum()
        for start in range(0, resamples, chunk):
            rows = min(chunk, resamples - start)
            yield generator.multinomial(self.num_items, shares, size=rows).astype(np.float64)


def pool(items: Array, supposed: Array | None = None, weight: float = 0.0) -> Pool:
    """Items ``[N, C]`` as a pool, and outcomes ``[K, C]`` that are supposed beside them, each with a weight."""
    weights = np.ones(len(items))
    every = items
    if supposed is not None:
        every = np.concatenate([items, supposed])
        weights = np.concatenate([weights, np.full(len(supposed), weight)])
    outcomes, place = np.unique(every, axis=0, return_inverse=True)
    counts = np.bincount(place.reshape(-1), weights=weights).astype(np.float64)
    return Pool(outcomes, counts, len(items))


def sums(counts: Array, outcomes: Array) -> Array:
    """``counts @ outcomes``, ``[..., R]`` by ``[R, C]``, added up in the same order on every processor.

    The order of a matrix product depends on processor and number of rows, and with it the last digits. Where estimates
    are compared for ties, these would decide what is one, and ends of intervals with them.
    """
    return np.stack([(counts * figure).sum(axis=-1) for figure in outcomes.T], axis=-1)


@dataclass(frozen=True)
class Statistic:
    """A smooth function of the means of pools.

    Attributes:
        value: takes an array ``[..., C]`` for each pool, gives ``[...]``.
        gradient: takes means ``[C]`` for each pool, gives ``[C]`` for each.
    """

    value: Callable[[Sequence[Array]], Array]
    gradient: Callable[[Sequence[Array]], Sequence[Array]]


def bca(
    pools: Sequence[Pool], statistic: Statistic, *, resamples: int, seed: int, confidence: float
) -> tuple[float, float] | None:
    """Percentiles of resampled estimates, corrected for bias and skewness, and for how few items there are.

    The variance of resamples is ``(n - 1) / n`` of what it should be, and the spread of the items is itself an
    estimate: the normal quantiles of the method are widened by both, the second as Student's t with Welch's degrees of
    freedom. The second is left out for pools with supposed items, which widen it already.

    Args:
        pools: the pools, from which items are drawn independently.
        statistic: the statistic, a function of the pools' means.
        resamples: the number of resamples, B.
        seed: the seed of the draws.
        confidence: nominal coverage.

    Returns:
        Both ends, equal where the items have no spread; None where the statistic
        does not exist in one resample of a hundred.

    Source:
        B. Efron, Better bootstrap confidence intervals, JASA 82 (1987), equations 2.3 and 7.3; the widening from
        T. Hesterberg, What teachers should know about the bootstrap, The American Statistician 69 (2015), section 3.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        np.concatenate([sums(counts, each.outcomes) / each.num_items for counts in each.draw(generator, resamples)])
        for each in pools
    ]
    means = [each.means for each in pools]
    estimate, estimates = float(statistic.value(means)), statistic.value(drawn)
    exist = np.isfinite(estimates)
    if exist.mean() < _EXISTING:
        return None
    estimates = estimates[exist]
    influences = [each.influence(part) for each, part in zip(pools, statistic.gradient(means), strict=True)]
    variances = np.array([each.counts @ found**2 for each, found in zip(pools, influences, strict=True)])
    if variances.sum() == 0.0:
        return estimate, estimate
    third = sum(float(each.counts @ found**3) for each, found in zip(pools, influences, strict=True))
    acceleration = third / (6 * float(variances.sum()) ** 1.5)
    # Ties, which are common among shares of few items, count half; the bounds keep the quantile function finite.
    below = float((estimates < estimate).mean() + 0.5 * (estimates == estimate).mean())
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(estimates)), 1 - 0.5 / len(estimates)))
    wide = _widened(pools, variances, confidence)
    shares = []
    for z in (bias - wide, bias + wide):
        room = 1 - acceleration * z
        shares.append(_NORMAL.cdf(bias + z / room) if room > 0 else float(z > 0))
    low, high = _quantiles(estimates, shares)
    return low, high


def _quantiles(values: Array, shares: Sequence[float]) -> list[float]:
    """Where the mid-distribution function, which counts ties half, takes these shares; linear in between.

    A share of N items can only be a multiple of 1/N. An end on such a multiple would bring all of its probability
    along, and the interval would hold the truth too often.

    Source:
        Y. Ma, M. G. Genton and E. Parzen, Asymptotic properties of sample quantiles of discrete distributions, Annals
        of the Institute of Statistical Mathematics 63 (2011).
    """
    distinct, counts = np.unique(values, return_counts=True)
    middles = (np.cumsum(counts) - counts / 2) / len(values)
    return [float(np.interp(share, middles, distinct)) for share in shares]


def _widened(pools: Sequence[Pool], variances: Array, confidence: float) -> float:
    from scipy.special import stdtrit

    num_items = np.array([max(each.num_items, 2) for each in pools])
    freedoms = np.array([np.inf if each.has_supposed else max(each.num_items, 2) - 1 for each in pools])
    uncertain = float((variances**2 / freedoms).sum())
    freedom = float(variances.sum() ** 2) / uncertain if uncertain > 0 else float("inf")
    lost = float((variances * num_items / (num_items - 1)).sum() / variances.sum())
    # What scipy.stats.t.ppf ends in, to the bit, without checks of arrays that take longer than the rest of this.
    return float(stdtrit(freedom, (1 + confidence) / 2)) * lost**0.5


def studentised_ratio(
    numerators: Array, denominators: Array, *, resamples: int, seed: int, confidence: float
) -> tuple[float, float] | None:
    """Interval of ``sum(numerators) / sum(denominators)`` from resamples in units of their own standard errors.

    Slower to settle than :func:`bca` and free to leave the range of the items, but it knows that skewed items make
    the standard error itself uncertain.

    Args:
        numerators: ``[N]``.
        denominators: ``[N]`` positive.
        resamples: the number of resamples, B.
        seed: the seed of the draws.
        confidence: nominal coverage.

    Returns:
        None where so many resamples have no spread of their own that the quantiles do not exist.

    Source:
        T. J. DiCiccio and B. Efron, Bootstrap confidence intervals, Statistical Science 11 (1996), section 4, with the
        standard error of the delta method.
    """
    generator = np.random.default_rng(seed)
    both = pool(np.stack([numerators, denominators], axis=1))
    squares = np.stack([both.outcomes[:, i] * both.outcomes[:, j] for i, j in ((0, 0), (0, 1), (1, 1))], axis=1)
    moments = np.concatenate([squares, both.outcomes], axis=1)
    estimate, error = _ratio_and_error(both.counts @ moments / both.num_items, both.num_items)
    drawn = np.concatenate([counts @ moments / both.num_items for counts in both.draw(generator, resamples)])
    estimates, errors = _ratio_and_error(drawn, both.num_items)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = (estimates - estimate) / errors
    # No distance in no spread.
    distances[(errors == 0.0) & (np.abs(estimates - estimate) <= _SPECK * abs(estimate))] = 0.0
    tail = (1 - confidence) / 2
    # No interpolation, which would make a number of an infinite distance and a finite one.
    below, above = np.quantile(distances, [tail, 1 - tail], method="nearest")
    if not np.isfinite([below, above]).all():
        return None
    return float(estimate - above * error), float(estimate - below * error)


def _ratio_and_error(moments: Array, num_items: int) -> tuple[Array, Array]:
    """Ratio and its standard error from means ``[..., 5]`` of squares, products and both numbers."""
    square, product, weight, above, below = np.moveaxis(moments, -1, 0)
    ratio = above / below
    # Rounding can leave a negative speck where all items are equal.
    spread = np.maximum(square - 2 * ratio * product + ratio**2 * weight, 0.0)
    spread = np.where(spread < 1e-12 * square, 0.0, spread)
    return ratio, np.sqrt(spread / num_items) / below
