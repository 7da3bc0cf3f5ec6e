"""Which anchor rows belong to which optimizer step, in an order of the seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

# The orders of safety rows and of replay rows have the numbers 0 and 1.
_ANCHOR = 2


@dataclass(frozen=True)
class AnchorSchedule:
    """Which anchor rows belong to which optimizer step, whatever the number of ranks and accumulated batches.

    Rows come from shuffled passes over all of them that go on from step to step.

    Attributes:
        num_rows: the number of anchor rows.
        per_step: the number of rows of each step.
        seed: the seed of the order.
        number: the number of the set that the rows are of, from 0.
    """

    num_rows: int
    per_step: int
    seed: int
    number: int = 0
    _orders: dict[int, list[int]] = field(default_factory=dict, repr=False, compare=False)

    def step(self, number: int) -> list[int]:
        """The rows of optimizer step ``number``, counted from 0."""
        first = number * self.per_step
        return [self.row(place) for place in range(first, first + self.per_step)]

    def row(self, place: int) -> int:
        """The row at a place of the endless sequence of passes."""
        number, within = divmod(place, self.num_rows)
        if number not in self._orders:
            self._orders.clear()
            seed = [self.seed, _ANCHOR, number, *([self.number] if self.number else [])]
            self._orders[number] = np.random.default_rng(seed).permutation(self.num_rows).tolist()
        return self._orders[number][within]


class SharedSchedule:
    """Rows of several sets, in exact numbers by their shares: any first n rows have n times its share of each set.

    That holds to within a row for two sets, and nearly so for more. Each set has an order of its own.

    Args:
        sizes: the number of rows of each set.
        shares: the share of each set, in any unit; empty for equal ones.
        per_step: the number of rows of each step.
        seed: the seed of the orders.
    """

    def __init__(self, sizes: Sequence[int], shares: Sequence[float], per_step: int, seed: int) -> None:
        exact = [Fraction(str(share)) for share in shares] or [Fraction(1)] * len(sizes)
        unit = math.lcm(*(share.denominator for share in exact))
        self._shares = [int(share * unit) for share in exact]
        self._sets = [AnchorSchedule(size, per_step, seed, number) for number, size in enumerate(sizes)]
        self._per_step = per_step
        self._dealt: list[tuple[int, int]] = []
        self._given = [0] * len(sizes)

    def step(self, number: int) -> list[tuple[int, int]]:
        """The rows of optimizer step ``number``, counted from 0, each with the number of its set before it."""
        first = number * self._per_step
        self._deal(first + self._per_step)
        dealt = self._dealt[first : first + self._per_step]
        return [(which, self._sets[which].row(place)) for which, place in dealt]

    def _deal(self, count: int) -> None:
        """Deal out the first ``count`` rows: each to the set that lags furthest behind its share."""
        total = sum(self._shares)
        for number in range(len(self._dealt) + 1, count + 1):
            lags = [share * number - given * total for share, given in zip(self._shares, self._given, strict=True)]
            which = max(range(len(lags)), key=lambda index: lags[index])
            self._dealt.append((which, self._given[which]))
            self._given[which] += 1


def rows_per_step(num_safety: float | Fraction, ratio: float) -> int:
    """The number of anchor rows beside ``num_safety`` rows of an optimizer step: ``S R / (1 - R)``, at least one."""
    share = Fraction(str(ratio))
    return max(1, round(num_safety * share / (1 - share)))
