"""Confidence intervals of evaluation figures: the bootstrap over items, and Wilson's for a share of right answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipelines.evaluation.statistics.resampling import Array, Pool, Statistic, bca, pool, studentised_ratio

Method = Literal["bootstrap", "wilson"]

CONFIDENCE = 0.95

# Few of the items of two models differ, and what seldom happens may not have happened at all, while a resample can only
# repeat what did. So half an item of each extreme outcome is supposed beside the items, over all pools of a figure
# together (A. Agresti and Y. Min, Simple improved confidence intervals for comparing matched proportions, Statistics in
# Medicine 24, 2005, do so for the normal approximation).
_SUPPOSED = 0.5
_SCORES = np.array([[0.0], [1.0]])
_CHANGES = np.array([[-1.0], [0.0], [0.0], [1.0]])
_PAIRS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])

# Resamples of fewer items have standard errors that are next to nothing now and then.
_FEWEST = 10


@dataclass(frozen=True)
class Interval:
    """A confidence interval and how it was found."""

    low: float
    high: float
    method: Method


def mean_interval(
    values: Array,
    *,
    strata: np.ndarray[Any, Any] | None = None,
    resamples: int,
    seed: int,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Interval of a mean, or of the mean of the strata's means.

    A share (all values 0 or 1, in one stratum) gets Wilson's interval: resamples of a share are binomial, and can only
    fall on the multiples of 1/N, where Wilson's needs none. Where all values of all strata are 0, or all are 1, it is
    given too. Anything else is bootstrapped over items.

    Args:
        values: ``[N]``, one for each item.
        strata: ``[N]`` labels; items are resampled within their stratum, and strata count equally. None: one stratum.
        resamples: number of bootstrap resamples.
        seed: the seed of the resampling; the same seed gives the same interval.
        confidence: nominal coverage.

    Returns:
        None where there is no information on the spread: no stratum has two items.

    Raises:
        ValueError: there are no values, or not one stratum for each.
    """
    values = np.asarray(values, dtype=np.float64)
    groups = _groups(values, strata)
    are_shares = bool(np.isin(values, (0.0, 1.0)).all())
    if are_shares and (len(groups) == 1 or (values == values[0]).all()):
        return wilson_interval(int(values.sum()), len(values), confidence=confidence)
    within = bool(((values >= 0.0) & (values <= 1.0)).all())
    is_constant = all((group == group[0]).all() for group in groups)
    supposed = _SCORES if are_shares or (within and is_constant) else None
    return _mean_of_means(groups, supposed, resamples, seed, confidence, is_bounded=within)


def difference_interval(
    changes: Array,
    *,
    strata: np.ndarray[Any, Any] | None = None,
    resamples: int,
    seed: int,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Interval of the mean difference between two models' scores on the same items, by the bootstrap over items.

    Where no item changed, the interval holds the changes that as many unchanged items leave possible (Wilson's bound)
    in both directions.

    Args:
        changes: ``[N]``, the second model's score less the first's.
        strata: labels as for :func:`mean_interval`.
        resamples: number of bootstrap resamples.
        seed: the seed of the resampling.
        confidence: nominal coverage.

    Raises:
        ValueError: as for :func:`mean_interval`.
    """
    changes = np.asarray(changes, dtype=np.float64)
    groups = _groups(changes, strata)
    are_flips = bool(np.isin(changes, (-1.0, 0.0, 1.0)).all())
    if are_flips and (changes == changes[0]).all():
        bound = wilson_interval(0, len(changes), confidence=confidence).high
        return Interval(max(-1.0, float(changes[0]) - bound), min(1.0, float(changes[0]) + bound), "wilson")
    within = bool((np.abs(changes) <= 1.0).all())
    return _mean_of_means(groups, _CHANGES if within else None, resamples, seed, confidence, is_bounded=within)


def _groups(values: Array, strata: np.ndarray[Any, Any] | None) -> list[Array]:
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values must be a list of at least one number, not of shape {values.shape}")
    if strata is None:
        return [values]
    if len(strata) != len(values):
        raise ValueError(f"{len(strata)} strata for {len(values)} values")
    return [values[strata == label] for label in np.unique(strata)]


def _mean_of_means(
    groups: Sequence[Array],
    supposed: Array | None,
    resamples: int,
    seed: int,
    confidence: float,
    *,
    is_bounded: bool,
) -> Interval | None:
    if max(map(len, groups)) < 2:
        return None
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    if len(groups) == 1 and not is_bounded:
        return ratio_interval(groups[0], np.ones(len(groups[0])), **options)
    pools = [pool(group[:, None], supposed, _SUPPOSED / len(groups)) for group in groups]
    found = bca(pools, _MEAN_OF_MEANS, **options)
    assert found is not None, "a mean exists in every resample"
    return Interval(*found, "bootstrap")


_MEAN_OF_MEANS = Statistic(
    value=lambda means: np.mean([mean[..., 0] for mean in means], axis=0),
    gradient=lambda means: [np.full(1, 1.0 / len(means)) for _ in means],
)


def ratio_interval(
    numerators: Array, denominators: Array, *, resamples: int, seed: int, confidence: float = CONFIDENCE
) -> Interval | None:
    """Interval of ``sum(numerators) / sum(denominators)`` by the studentised bootstrap over items.

    For figures per token, where the items (samples) are drawn independently and the tokens in one are not. With
    fewer than ten items the BCa bootstrap takes its place.

    Args:
        numerators: ``[N]``, such as the loss summed over a sample's tokens.
        denominators: ``[N]`` positive, such as the number of its tokens.
        resamples: number of bootstrap resamples.
        seed: the seed of the resampling.
        confidence: nominal coverage.

    Returns:
        None where there is a single item, which says nothing on the spread.

    Raises:
        ValueError: lengths differ, there are no items, or a denominator is not positive.
    """
    numerators, denominators = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if numerators.shape != denominators.shape or numerators.ndim != 1 or len(numerators) == 0:
        raise ValueError(f"{numerators.shape} numerators do not go with {denominators.shape} denominators")
    if not (denominators > 0).all():
        raise ValueError("denominators must be positive")
    if len(numerators) < 2:
        return None
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    found = None
    if len(numerators) >= _FEWEST:
        found = studentised_ratio(numerators, denominators, **options)
    if found is None:
        found = bca([pool(np.stack([numerators, denominators], axis=1))], _RATIO, **options)
        assert found is not None, "denominators are positive in every resample"
    return Interval(*found, "bootstrap")


_RATIO = Statistic(
    value=lambda means: means[0][..., 0] / means[0][..., 1],
    gradient=lambda means: [np.array([1.0, -means[0][0] / means[0][1]]) / means[0][1]],
)


def relative_gain_interval(
    figures: Sequence[Sequence[tuple[Array, Array]]],
    signs: Sequence[float],
    *,
    resamples: int,
    seed: int,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Interval of the mean over figures of ``sign * (s - s0) / s0``, by the BCa bootstrap over pairs of items.

    Args:
        figures: for each figure its groups, and for each group ``([N], [N])``: the scores of the starting model and of
            the other on the same items. A figure is the mean of its groups' means.
        signs: for each figure 1 where more is better, -1 where less is.
        resamples: number of bootstrap resamples.
        seed: the seed of the resampling.
        confidence: nominal coverage.

    Returns:
        None where no group has two items or none of its scores has any spread, which says nothing, or where the
        starting model's figure is 0 in one resample of a hundred: with fewer than some five items right, that is.

    Raises:
        ValueError: a figure of the starting model is not positive.
    """
    for groups in figures:
        start = float(np.mean([earlier.mean() for earlier, _ in groups]))
        if start <= 0.0:
            raise ValueError(f"a relative gain needs a positive start, not {start}")
    num_pools = sum(map(len, figures))
    pools = [_pairs(earlier, later, num_pools) for groups in figures for earlier, later in groups]
    if max(each.num_items for each in pools) < 2:
        return None
    gain = _Gain([len(groups) for groups in figures], [sign / len(figures) for sign in signs])
    statistic = Statistic(gain.value, gain.gradient)
    found = bca(pools, statistic, resamples=resamples, seed=seed, confidence=confidence)
    return None if found is None or found[0] == found[1] else Interval(*found, "bootstrap")


def _pairs(earlier: Array, later: Array, num_pools: int) -> Pool:
    both = np.stack([earlier, later], axis=1).astype(np.float64)
    supposed = _PAIRS if ((both >= 0.0) & (both <= 1.0)).all() else None
    return pool(both, supposed, _SUPPOSED / num_pools)


@dataclass(frozen=True)
class _Gain:
    """The weighted relative changes of figures, of which each is the mean of several pools of pairs.

    Attributes:
        sizes: pools of each figure.
        weights: the weight of each figure's relative change.
    """

    sizes: Sequence[int]
    weights: Sequence[float]

    def value(self, means: Sequence[Array]) -> Array:
        """``[...]`` from ``[..., 2]`` for each pool; not finite where a starting figure is 0."""
        total: Array = np.zeros(means[0].shape[:-1])
        with np.errstate(divide="ignore", invalid="ignore"):
            for weight, figure in zip(self.weights, self._figures(means), strict=True):
                both = np.mean(figure, axis=0)
                total = total + weight * (both[..., 1] / both[..., 0] - 1.0)
        return total

    def gradient(self, means: Sequence[Array]) -> list[Array]:
        """``[2]`` for each pool."""
        found = []
        for weight, figure in zip(self.weights, self._figures(means), strict=True):
            start, value = np.mean(figure, axis=0)
            found += [weight / len(figure) * np.array([-value / start**2, 1.0 / start])] * len(figure)
        return found

    def _figures(self, means: Sequence[Array]) -> list[Sequence[Array]]:
        ends = np.cumsum(self.sizes)
        return [means[end - size : end] for size, end in zip(self.sizes, ends, strict=True)]


def wilson_interval(successes: int, total: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a proportion.

    Raises:
        ValueError: ``total`` is below 1, or ``successes`` is not from 0 to ``total``.

    Source:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total}")
    # scipy.stats has it too, as a part of a test, and takes longer to import than a report on a few runs takes.
    from scipy.special import ndtri

    z = float(ndtri(0.5 + 0.5 * confidence))
    share, width = successes / total, 2 * (total + z**2)
    center = (2 * total * share + z**2) / width
    reach = z / width * math.sqrt(4 * total * share * (1 - share) + z**2)
    low = 0.0 if successes == 0 else center - reach
    high = 1.0 if successes == total else center + reach
    return Interval(low, high, "wilson")
