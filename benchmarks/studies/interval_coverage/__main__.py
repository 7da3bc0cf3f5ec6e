"""How often the 95 % intervals of ``ogpsa evaluate`` and ``ogpsa report`` hold the truth, in simulated evaluations.

Run from the repository: ``python -m benchmarks.studies.interval_coverage``. Items are drawn anew in every replication,
as if from an endless set of such items: right or wrong for two models that agree on most of them, scores between 0 and
1, losses per token. Each line of the table is one situation: coverage, how often the truth lies below the interval and
above it, and the interval's mean width. A share of few items can only be one of a few numbers, so that its coverage
jumps with the truth: beside the truth itself stands the mean over truths that are up to 30 % nearer to the end or
farther from it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.statistics.intervals import (
    Interval,
    difference_interval,
    mean_interval,
    ratio_interval,
    relative_gain_interval,
)

Draw = np.random.Generator
Outcome = tuple[Interval | None, float]

NUM_ITEMS = (50, 100, 200, 450, 1319)
# The shares of the starting model and of the other model, and the share of items on which the two differ.
PAIRS = ((0.2, 0.25, 0.12), (0.5, 0.45, 0.15), (0.9, 0.86, 0.08), (0.97, 0.94, 0.05))


@dataclass(frozen=True)
class Situation:
    """One line of the table; its ``measure`` draws items and returns the interval together with the truth."""

    family: str
    name: str
    measure: Callable[[Draw, dict[str, int]], Outcome]


@dataclass(frozen=True)
class Found:
    """How the intervals of a situation fared, as shares of the replications."""

    family: str
    name: str
    coverage: float
    truth_below: float
    truth_above: float
    width: float
    without: float


def pairs(generator: Draw, count: int, start: float, other: float, apart: float) -> tuple[int, ...]:
    """Draw how many items both models get wrong, are gained, are lost, and both get right."""
    gained, lost = (apart + other - start) / 2, (apart - other + start) / 2
    shares = np.clip([1 - start - gained, gained, lost, start - lost], 0.0, 1.0)
    return tuple(generator.multinomial(count, shares).tolist())


def share(count: int, truth: float, spread: float) -> Callable[..., Outcome]:
    def measure(generator: Draw, options: dict[str, int]) -> Outcome:
        real = truth + generator.uniform(-1, 1) * spread * min(truth, 1 - truth)
        return mean_interval((generator.random(count) < real).astype(float), **options), real

    return measure


def mean_of_groups(groups: int, count: int, low: float, high: float) -> Callable[..., Outcome]:
    truths = np.linspace(low, high, groups)

    def measure(generator: Draw, options: dict[str, int]) -> Outcome:
        strata = np.repeat(np.arange(groups), count)
        values = (generator.random(len(strata)) < truths[strata]).astype(float)
        return mean_interval(values, strata=strata, **options), float(truths.mean())

    return measure


def difference(count: int, start: float, other: float, apart: float) -> Callable[..., Outcome]:
    def measure(generator: Draw, options: dict[str, int]) -> Outcome:
        # Differences are multiples of 1 / count, so coverage is averaged over truths from one multiple to the next.
        real = other + generator.uniform(-0.5, 0.5) / count
        _, gained, lost, _ = pairs(generator, count, start, real, apart)
        changes = np.repeat([0.0, 1.0, -1.0], [count - gained - lost, gained, lost])
        return difference_interval(changes, **options), real - start

    return measure


def gain(figures: list[tuple[int, int, float, float, float]]) -> Callable[..., Outcome]:
    """The gain over figures that are each a mean over (groups, items in a group, start, other, apart)."""
    truth = float(np.mean([other / start - 1 for _, _, start, other, _ in figures]))

    def measure(generator: Draw, options: dict[str, int]) -> Outcome:
        drawn = [[pairs(generator, count, *shares) for _ in range(groups)] for groups, count, *shares in figures]
        return _gain(drawn, options), truth

    return measure


def _gain(drawn: list[list[tuple[int, ...]]], options: dict[str, int]) -> Interval | None:
    """The interval for these counts of pairs of each kind; None also if the starting model gets nothing right."""
    if any(sum(lost + both for _, _, lost, both in figure) == 0 for figure in drawn):
        return None
    kinds = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    items = [[np.repeat(kinds, counts, axis=0) for counts in figure] for figure in drawn]
    figures = [[(both[:, 0], both[:, 1]) for both in figure] for figure in items]
    return relative_gain_interval(figures, [1.0] * len(figures), **options)


def graded_gain(count: int) -> Callable[..., Outcome]:
    """The gain on graded answers (F1 scores, often 0 or 1); the other model redoes a quarter of them, a bit worse."""

    def measure(generator: Draw, options: dict[str, int]) -> Outcome:
        first, again = generator.beta(0.6, 0.3, count), 0.9 * generator.beta(0.6, 0.3, count)
        second = np.where(generator.random(count) < 0.25, again, first)
        return relative_gain_interval([[(first, second)]], [1.0], **options), -0.025

    return measure


def scores(count: int) -> Callable[..., Outcome]:
    return lambda generator, options: (mean_interval(generator.beta(0.6, 0.3, count), **options), 2 / 3)


def margins(count: int) -> Callable[..., Outcome]:
    return lambda generator, options: (mean_interval(1 + generator.standard_t(5, count), **options), 1.0)


def losses(count: int, log_spread: float) -> Callable[..., Outcome]:
    """The loss per token of answers of 5 to 80 tokens, whose losses per token are log-normal around 1."""

    def measure(generator: Draw, options: dict[str, int]) -> Outcome:
        tokens = generator.integers(5, 80, count).astype(float)
        each = np.exp(generator.normal(-(log_spread**2) / 2, log_spread, count))
        return ratio_interval(tokens * each, tokens, **options), 1.0

    return measure


def situations() -> Iterator[Situation]:
    for truth in (0.2, 0.5, 0.9, 0.97, 0.99):
        for count in NUM_ITEMS:
            yield Situation("share", f"{truth:.0%} of {count}", share(count, truth, 0.0))
            yield Situation("share, mean over truths", f"{truth:.0%} of {count}", share(count, truth, 0.3))
    for groups, count, low, high in ((10, 60, 0.5, 1.0), (10, 60, 0.95, 0.99), (10, 20, 0.6, 0.95), (5, 200, 0.3, 0.9)):
        name = f"{groups} groups of {count}, {low:.0%} to {high:.0%}"
        yield Situation("mean of groups", name, mean_of_groups(groups, count, low, high))
    for start, other, apart in PAIRS:
        for count in NUM_ITEMS:
            name = f"{start:.0%} to {other:.0%}, {apart:.0%} apart, {count} items"
            yield Situation("difference", name, difference(count, start, other, apart))
            yield Situation("gain", name, gain([(1, count, start, other, apart)]))
    several = [(1, 100, *PAIRS[2]), (1, 200, *PAIRS[1]), (1, 450, 0.7, 0.64, 0.11), (1, 1319, *PAIRS[0]),
               (1, 100, *PAIRS[3]), (1, 164, 0.6, 0.6, 0.06)]  # fmt: skip
    for number in (2, 3, 6):
        yield Situation("gain of several", f"{number} of 100 to 1319 items", gain(several[:number]))
        alike = [(1, 50, *figure[2:]) for figure in several[:number]]
        yield Situation("gain of several", f"{number} of 50 items", gain(alike))
    yield Situation("gain of several", "one figure of 10 groups of 60", gain([(10, 60, 0.9, 0.85, 0.09)]))
    for count in (50, 200, 1319):
        yield Situation("graded scores", f"gain, {count} items", graded_gain(count))
        yield Situation("graded scores", f"mean, {count} items", scores(count))
        yield Situation("unbounded", f"margins (t5), {count} items", margins(count))
        yield Situation("unbounded", f"loss per token, spread 0.3, {count} items", losses(count, 0.3))
        yield Situation("unbounded", f"loss per token, spread 0.6, {count} items", losses(count, 0.6))


def simulate(situation: Situation, *, replications: int, resamples: int, seed: int) -> Found:
    generator = np.random.default_rng(seed)
    below = above = without = 0
    width = 0.0
    for number in range(replications):
        interval, truth = situation.measure(generator, {"resamples": resamples, "seed": number})
        if interval is None:
            without += 1
            continue
        below += truth < interval.low - 1e-12
        above += truth > interval.high + 1e-12
        width += interval.high - interval.low
    given = max(1, replications - without)
    shares = (1 - (below + above) / given, below / given, above / given, width / given, without / replications)
    return Found(situation.family, situation.name, *map(float, shares))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--only", default="", help="families that begin so")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    error = 100 * (0.95 * 0.05 / options.replications) ** 0.5
    print(f"{options.replications} replications, {options.resamples} resamples; standard error at 95 %: {error:.2f}")
    print("| figure | situation | coverage % | truth below % | truth above % | mean width | no interval % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    for situation in situations():
        if not situation.family.startswith(options.only):
            continue
        found = simulate(situation, replications=options.replications, resamples=options.resamples, seed=1)
        rows.append(asdict(found))
        print(
            f"| {found.family} | {found.name} | {100 * found.coverage:.1f} | {100 * found.truth_below:.1f} "
            f"| {100 * found.truth_above:.1f} | {found.width:.4f} | {100 * found.without:.1f} |",
            flush=True,
        )
    print(f"{time.monotonic() - started:.0f} s")
    if options.json:
        content = {"replications": options.replications, "resamples": options.resamples, "found": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
