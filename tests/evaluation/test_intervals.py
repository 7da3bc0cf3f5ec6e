"""Intervals: coverage at the nominal rate, agreement with independent implementations, honesty at the ends."""

import os
import subprocess
import sys
from math import comb
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from pipelines.evaluation.statistics.intervals import (
    difference_interval,
    mean_interval,
    ratio_interval,
    relative_gain_interval,
    wilson_interval,
)
from pipelines.evaluation.statistics.resampling import Statistic, _widened, bca, pool, studentised_ratio

SIMULATIONS = 300
# 95 % of 300 with three standard errors, and the small-sample error of a bootstrap.
AT_LEAST = 0.95 - 3 * np.sqrt(0.95 * 0.05 / SIMULATIONS) - 0.005


def coverage(draw, truth, interval) -> float:
    hits = 0
    for seed in range(SIMULATIONS):
        found = interval(draw(), seed)
        hits += found.low - 1e-12 <= truth <= found.high + 1e-12
    return hits / SIMULATIONS


@pytest.mark.parametrize(("num_items", "share"), [(20, 0.5), (50, 0.2), (100, 0.9), (100, 0.97)])
def test_shares_are_covered_at_the_nominal_rate(num_items, share):
    """Exact: the mean over truths near by, since the coverage of one truth jumps with the number of items."""
    intervals = [
        mean_interval(np.repeat([1.0, 0.0], [right, num_items - right]), resamples=100, seed=0)
        for right in range(num_items + 1)
    ]
    spread = 0.3 * min(share, 1 - share)
    covered = [
        sum(
            comb(num_items, right) * truth**right * (1 - truth) ** (num_items - right)
            for right, found in enumerate(intervals)
            if found.low <= truth <= found.high
        )
        for truth in np.linspace(share - spread, share + spread, 101)
    ]
    assert 0.945 <= np.mean(covered) <= 0.965
    assert min(covered) > 0.90


def test_skewed_means_are_covered_and_not_by_width_alone():
    rng = np.random.default_rng(2)
    found = coverage(
        lambda: rng.exponential(size=80), 1.0, lambda values, seed: mean_interval(values, resamples=400, seed=seed)
    )
    assert AT_LEAST <= found <= 0.985


def test_stratified_means_are_covered():
    rng = np.random.default_rng(3)
    strata = np.repeat(np.arange(5), 30)
    shares = np.linspace(0.4, 1.0, 5)
    found = coverage(
        lambda: (rng.random(150) < shares[strata]).astype(float),
        shares.mean(),
        lambda values, seed: mean_interval(values, strata=strata, resamples=400, seed=seed),
    )
    assert AT_LEAST <= found <= 0.99


def test_ratios_are_covered():
    rng = np.random.default_rng(4)

    def draw():
        tokens = rng.integers(1, 40, 80).astype(float)
        return tokens * rng.gamma(4, 0.5, 80), tokens

    found = coverage(draw, 2.0, lambda pair, seed: ratio_interval(*pair, resamples=400, seed=seed))
    assert AT_LEAST <= found <= 0.985


def test_flips_are_covered_at_the_nominal_rate_at_all_outcomes():
    """Exact: over every number of gained and lost items among 60, weighted by how likely it is."""
    num_items, covered, seen = 60, 0.0, 0.0
    for gained_share, lost_share in ((0.02, 0.08), (0.07, 0.07), (0.04, 0.14)):
        shares = np.array([gained_share, lost_share, 1 - gained_share - lost_share])
        truth = gained_share - lost_share
        for gained in range(16):
            for lost in range(22):
                weight = stats.multinomial.pmf([gained, lost, num_items - gained - lost], num_items, shares)
                if weight < 3e-4:
                    continue
                changes = np.repeat([1.0, -1.0, 0.0], [gained, lost, num_items - gained - lost])
                found = difference_interval(changes, resamples=600, seed=0)
                seen += weight
                covered += weight * (found.low <= truth <= found.high)
    assert seen > 2.9
    assert 0.945 <= covered / seen <= 0.98


def gained_and_lost(rng, num_items: int, start: float, other: float, apart: float):
    shares = [1 - start - (apart + other - start) / 2, (apart + other - start) / 2, (apart - other + start) / 2]
    return tuple(rng.multinomial(num_items, [*shares, 1 - sum(shares)]).tolist())


def gain_of(counts, resamples=500):
    first = np.repeat([0.0, 0.0, 1.0, 1.0], counts)
    second = np.repeat([0.0, 1.0, 0.0, 1.0], counts)
    return relative_gain_interval([[(first, second)]], [1.0], resamples=resamples, seed=0)


@pytest.mark.parametrize(("start", "other", "apart"), [(0.9, 0.86, 0.08), (0.5, 0.45, 0.15)])
def test_relative_gains_are_covered_at_the_nominal_rate(start, other, apart):
    rng = np.random.default_rng(8)
    truth, known, hits = other / start - 1, {}, 0
    for _ in range(2000):
        counts = gained_and_lost(rng, 70, start, other, apart)
        if counts not in known:
            found = gain_of(counts)
            known[counts] = found.low <= truth <= found.high
        hits += known[counts]
    assert 0.94 <= hits / 2000 <= 0.97


def test_nothing_changed_is_no_certainty():
    found = gain_of((10, 0, 0, 40))
    assert -0.08 < found.low < -0.005 < 0.005 < found.high < 0.08
    among = difference_interval(np.tile([0.0, 0.5], 20), strata=np.repeat([0, 1], 20), resamples=500, seed=0)
    assert among.low < among.high
    same = difference_interval(np.repeat([0.25, 0.5], 20), strata=np.repeat([0, 1], 20), resamples=500, seed=0)
    assert same.low < 0.375 < same.high


def test_a_start_near_zero_has_no_gain_interval():
    assert gain_of((48, 1, 1, 0)) is None
    assert gain_of((30, 4, 2, 14)) is not None


def test_bca_agrees_with_scipys():
    values = np.random.default_rng(5).lognormal(sigma=1.2, size=40)
    mean = Statistic(lambda means: means[0][..., 0], lambda _: [np.ones(1)])
    low, high = bca([pool(values[:, None])], mean, resamples=40_000, seed=0, confidence=0.95)
    # As scipy's for the wider coverage to which the quantiles were widened.
    wide = 2 * stats.norm.cdf(stats.t.ppf(0.975, 39) * np.sqrt(40 / 39)) - 1
    theirs, plain = (
        stats.bootstrap(
            (values,), np.mean, n_resamples=40_000, method=method, batch=1000, rng=1, confidence_level=level
        ).confidence_interval
        for method, level in (("BCa", wide), ("percentile", 0.95))
    )
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.05)
    assert plain.high < high - 0.2  # the corrections are there


def test_the_studentised_bootstrap_agrees_with_a_plain_loop():
    rng = np.random.default_rng(6)
    tokens = rng.integers(1, 60, 50).astype(float)
    losses = tokens * rng.lognormal(0, 0.8, 50)

    def with_error(above, below):
        ratio = above.sum() / below.sum()
        return ratio, np.sqrt(((above - ratio * below) ** 2).sum()) / below.sum()

    estimate, error = with_error(losses, tokens)
    distances = []
    for _ in range(20_000):
        drawn = rng.integers(0, 50, 50)
        again, its_error = with_error(losses[drawn], tokens[drawn])
        distances.append((again - estimate) / its_error)
    below, above = np.quantile(distances, [0.025, 0.975])
    found = studentised_ratio(losses, tokens, resamples=20_000, seed=0, confidence=0.95)
    assert found == pytest.approx((estimate - above * error, estimate - below * error), abs=0.05 * error)
    assert ratio_interval(losses, tokens, resamples=20_000, seed=0).high == found[1]


def widening(num_items: int) -> float:
    """By how much the quantiles are widened for one pool in which nothing is supposed."""
    return _widened([pool(np.arange(num_items, dtype=float)[:, None])], np.ones(1), 0.95)


def test_few_items_are_widened_by_students_quantile():
    # In closed form for 1, 2 and 4 degrees of freedom; n/(n - 1) is for the variance of resamples.
    share = 0.975
    root = 4 * share * (1 - share)
    cosine = np.cos(np.arccos(np.sqrt(root)) / 3) / np.sqrt(root)
    quantiles = {
        1: np.tan(np.pi * (share - 0.5)),
        2: (2 * share - 1) * np.sqrt(2 / root),
        4: 2 * np.sqrt(cosine - 1),
    }
    for freedom, quantile in quantiles.items():
        num_items = freedom + 1
        assert widening(num_items) == pytest.approx(quantile * np.sqrt(num_items / freedom), rel=1e-12)


def test_many_items_are_widened_by_the_expansion_of_students_quantile():
    # M. Abramowitz and I. A. Stegun, Handbook of mathematical functions (1964), 26.7.5.
    z, num_items = NormalDist().inv_cdf(0.975), 2001
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    quantile = z + sum(term / (num_items - 1) ** power for power, term in enumerate(terms, start=1))
    assert widening(num_items) == pytest.approx(quantile * np.sqrt(num_items / (num_items - 1)), rel=1e-12)


def test_wilson_is_the_literal_formula():
    z = NormalDist().inv_cdf(0.975)
    for total in (1, 2, 3, 7, 20, 120, 1319):
        for successes in range(total + 1):
            share = successes / total
            centre = (share + z * z / (2 * total)) / (1 + z * z / total)
            half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
            found = wilson_interval(successes, total)
            assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-12)
            assert (found.low == 0.0) == (successes == 0)
            assert (found.high == 1.0) == (successes == total)


def test_wilson_agrees_with_scipy():
    for successes, total in [(0, 20), (20, 20), (7, 20), (1, 1), (119, 120)]:
        ours = wilson_interval(successes, total)
        theirs = stats.binomtest(successes, total).proportion_ci(method="wilson")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_perfect_shares_have_an_honest_width():
    ours = mean_interval(np.ones(20), resamples=100, seed=0)
    assert ours.method == "wilson"
    assert (ours.low, ours.high) == (pytest.approx(0.8389, abs=1e-4), 1.0)
    assert mean_interval(np.zeros(20), resamples=100, seed=0).low == 0.0


def test_equal_ratios_are_left_with_the_width_they_have():
    found = ratio_interval(np.full(5, 2.0), np.full(5, 4.0), resamples=100, seed=0)
    assert (found.low, found.high) == (0.5, 0.5)


@pytest.mark.parametrize("num_items", [2, 3, 9, 10, 14])
def test_few_items_have_an_interval_that_is_not_endless(num_items):
    values = np.arange(num_items, dtype=float)
    found = ratio_interval(values, np.ones(num_items), resamples=2000, seed=0)
    assert -num_items < found.low < values.mean() < found.high < 2 * num_items
    lone = ratio_interval(np.eye(num_items)[0], np.full(num_items, 0.5), resamples=2000, seed=0)
    assert -3 < lone.low < 2 / num_items < lone.high < 10


def test_one_item_says_nothing_on_the_spread():
    assert mean_interval(np.array([0.3]), resamples=100, seed=0) is None
    assert ratio_interval(np.array([3.0]), np.array([4.0]), resamples=100, seed=0) is None


def test_strata_count_equally_whatever_their_size():
    values = np.concatenate([np.tile([0.0, 1.0], 5), np.tile([2.0, 4.0], 50)])
    strata = np.repeat([0, 1], [10, 100])
    found = mean_interval(values, strata=strata, resamples=2000, seed=0)
    # Means 0.5 and 3; standard error of their mean from each stratum's own spread.
    error = 0.5 * np.sqrt(0.25 / 10 + 1.0 / 100)
    assert found.low == pytest.approx(1.75 - 1.96 * error, abs=0.03)
    assert found.high == pytest.approx(1.75 + 1.96 * error, abs=0.03)


def test_the_seed_decides_the_interval():
    values = np.random.default_rng(6).random(50)
    first = mean_interval(values, resamples=200, seed=1)
    assert first == mean_interval(values, resamples=200, seed=1)
    assert first != mean_interval(values, resamples=200, seed=2)


def test_many_items_are_resampled_in_chunks(monkeypatch):
    values, tokens = np.random.default_rng(7).random(500), np.ones(500)
    whole = ratio_interval(values, tokens, resamples=100, seed=0)
    monkeypatch.setattr("pipelines.evaluation.statistics.resampling._CHUNK_ELEMENTS", 7 * 500)
    found = ratio_interval(values, tokens, resamples=100, seed=0)
    # The draws are the same, but products of other shapes add their 500 terms up in another order: each mean of values
    # from 0 to 1 is off by at most 500 eps, and an end is made of two means and two standard errors.
    assert (found.low, found.high) == pytest.approx((whole.low, whole.high), rel=0, abs=4 * 500 * np.finfo(float).eps)


BY_KERNEL = """
import numpy as np
from pipelines.evaluation.statistics.intervals import difference_interval, mean_interval, ratio_interval
for num_items in (5, 7, 9, 12, 40):
    generator = np.random.default_rng(num_items)
    scores, weights = generator.integers(0, 4, num_items) / 3, generator.integers(1, 40, num_items).astype(float)
    for interval in (
        mean_interval(scores, resamples=1000, seed=0),
        difference_interval(scores - scores[::-1], resamples=1000, seed=0),
        ratio_interval(scores * weights + 0.1, weights, resamples=1000, seed=0),
    ):
        print(interval.low, interval.high)
"""


def test_intervals_are_the_same_whatever_kernel_multiplies_matrices():
    """Ties, of which there are many where scores are thirds, are found by exact comparison."""

    def found(kernel):
        # Where another library than OpenBLAS multiplies, it does not know the variable.
        env = {**os.environ, "OPENBLAS_CORETYPE": kernel}
        done = subprocess.run([sys.executable, "-c", BY_KERNEL], env=env, capture_output=True, text=True, check=True)
        return [float(word) for word in done.stdout.split()]

    first = found("Nehalem")
    assert len(first) == 30
    # What is smooth, such as the acceleration, may differ in its last digits.
    assert found("Prescott") == pytest.approx(first, rel=0, abs=1e-12)


def test_rounding_is_no_spread():
    """Neither the mean of equal values nor the quotient of equal quotients need be exact."""
    values = np.full(30, 2.3)
    assert relative_gain_interval([[(values, values)]], [1.0], resamples=200, seed=0) is None
    tokens = np.arange(1, 31).astype(float)
    found = ratio_interval(0.1 * tokens, tokens, resamples=200, seed=0)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1), rel=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval(np.array([]), resamples=100, seed=0),
        lambda: mean_interval(np.ones((2, 2)), resamples=100, seed=0),
        lambda: mean_interval(np.ones(2), strata=np.ones(3), resamples=100, seed=0),
        lambda: ratio_interval(np.ones(2), np.ones(3), resamples=100, seed=0),
        lambda: ratio_interval(np.ones(2), np.array([1.0, 0.0]), resamples=100, seed=0),
        lambda: wilson_interval(3, 2),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError):
        call()
