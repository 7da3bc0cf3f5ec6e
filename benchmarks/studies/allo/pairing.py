"""Two arms at equal safety on the same items: differences with intervals over worlds, nouns and items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.studies.allo.results import Clusters
from benchmarks.studies.tradeoff.figures import Spread, Where, at, differences, share, spread
from benchmarks.studies.tradeoff.outcomes import Outcome
from data_registry.testbed.skills import SKILLS
from data_registry.testbed.suite import OVER_REFUSAL_GROUP, REFUSAL_GROUP
from pipelines.evaluation.statistics.intervals import Interval, difference_interval, ratio_interval

RESAMPLES: Final = 2_000
_GROUPS: Final = {"safe": (REFUSAL_GROUP,), "over_refusal": (OVER_REFUSAL_GROUP,), "general": tuple(SKILLS)}

Runs = Mapping[Where, Outcome]


@dataclass(frozen=True)
class Paired:
    """How much higher a figure is in one arm than in another, in points.

    Attributes:
        over_worlds: the difference over worlds, each the mean over its seeds.
        over_items: the ends of the interval over what was asked in these worlds: over nouns for requests that are to
            be refused or look it, over items for skills; None where too few answers were kept.
    """

    over_worlds: Spread
    over_items: tuple[float, float] | None


def paired(ours: Runs, theirs: Runs, name: str, target: float, clusters: Mapping[int, Clusters]) -> Paired | None:
    """The difference of a figure at equal validation safety, in the worlds and seeds in which both arms reach it.

    Args:
        ours: the runs of the one arm by world and seed.
        theirs: those of the other.
        name: ``safe``, ``over_refusal`` or ``general``.
        target: validation safety, from 0 to 1.
        clusters: the items of the test by world.

    Returns:
        None where no world and seed has both arms at the target.
    """
    both = [where for where in ours if where in theirs and all(
        runs[where].chosen("mixed", target)[1] for runs in (ours, theirs)
    )]  # fmt: skip
    if not both:
        return None
    first, second = ({where: runs[where] for where in both} for runs in (ours, theirs))
    found = differences(*(at(runs, "mixed", target, share(name)) for runs in (first, second)))
    interval = _interval(dict(_changes(first, second, name, target, clusters)), name)
    ends = None if interval is None else (100 * interval.low, 100 * interval.high)
    return Paired(spread(found), ends)


def _changes(
    first: Runs, second: Runs, name: str, target: float, clusters: Mapping[int, Clusters]
) -> Iterator[tuple[tuple[int, int, str, str], float]]:
    """For each item of a world the mean change over seeds; named by world, place, group and what it is about."""
    by_world: dict[int, list[np.ndarray]] = defaultdict(list)
    for where, outcome in first.items():
        ours, theirs = (each.chosen("mixed", target)[0].answers for each in (outcome, second[where]))
        if ours and theirs:
            by_world[where[0]].append(_bits(ours) - _bits(theirs))
    for world, of_seeds in by_world.items():
        for place, (change, (group, about)) in enumerate(zip(np.mean(of_seeds, axis=0), clusters[world], strict=True)):
            if group in _GROUPS[name]:
                yield (world, place, group, about), float(change)


def _bits(answers: str) -> np.ndarray:
    return np.array([int(answer) for answer in answers], dtype=np.float64)


def _interval(changes: Mapping[tuple[int, int, str, str], float], name: str) -> Interval | None:
    if not changes:
        return None
    if name == "general":
        strata = np.array([group for _, _, group, _ in changes])
        return difference_interval(np.array(list(changes.values())), strata=strata, resamples=RESAMPLES, seed=0)
    sums: dict[tuple[int, str], list[float]] = defaultdict(list)
    for (world, _, _, about), change in changes.items():
        sums[world, about].append(change)
    totals, counts = (np.array([of(values) for values in sums.values()], dtype=np.float64) for of in (sum, len))
    return ratio_interval(totals, counts, resamples=RESAMPLES, seed=0)
