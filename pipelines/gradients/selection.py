"""Exact selection of the elements with the largest scores among more than fit into memory, by their bit patterns.

Non-negative float32 numbers are ordered as their bit patterns are as integers. Two passes over blocks of scores count
the upper and then the lower halves of the patterns, which gives the exact pattern at which the m largest end and how
many of its ties belong to them; a third pass tells the elements. Nothing is sorted, and one block is held at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 1 << 16
"""Number of upper halves, and of lower halves, of a pattern."""
_LARGEST = 0x7FFFFFFF


@dataclass(frozen=True)
class Cut:
    """Where the largest elements end.

    Attributes:
        key: the key of the last of them; elements with larger keys all belong to them.
        above: the number of elements with larger keys.
        taken: how many of the elements with this very key belong to them: the first in order.
    """

    key: int
    above: int
    taken: int

    @property
    def count(self) -> int:
        """The number of elements before the cut."""
        return self.above + self.taken


def keys_of(scores: Tensor, *, least: bool = False) -> Tensor:
    """Integers in the order of the scores, larger ones first to be chosen; 0 is never chosen.

    Args:
        scores: ``[n]`` float32, none negative.
        least: turn the order round. Scores of 0 are then the first; otherwise they have the key 0.

    Returns:
        ``[n]`` int32, none negative; a view of the scores unless the order is turned round.
    """
    bits = scores.view(torch.int32)
    return torch.sub(_LARGEST, bits) if least else bits


def score_of(key: int, *, least: bool = False) -> float:
    """The score that has this key."""
    bits = torch.tensor([_LARGEST - key if least else key], dtype=torch.int32)
    return float(bits.view(torch.float32))


def largest_of(scores: Tensor) -> float:
    """The largest of ``[n]`` float32 scores, none of them negative; NaN or infinity where not all are finite."""
    return float(scores.view(torch.int32).max().view(torch.float32))


def count_upper(keys: Tensor) -> Tensor:
    """How many of the keys have each upper half; ``[BINS]`` int64."""
    return torch.bincount(keys >> 16, minlength=BINS)


def count_lower(keys: Tensor, upper: int) -> Tensor:
    """How many of the keys with this upper half have each lower half; ``[BINS]`` int64."""
    # On a host, numpy compares and picks several times as fast as torch does.
    values = keys.numpy()
    found = torch.from_numpy(values[(values >> 16) == upper])
    return torch.bincount(found & (BINS - 1), minlength=BINS)


def bin_of(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The bin in which the ``wanted``-th largest element lies, and how many elements are in larger bins.

    Args:
        counts: ``[BINS]`` int64.
        wanted: from 1 to the sum of the counts.
    """
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, wanted))
    return BINS - 1 - place, int(from_top[place]) - int(counts[BINS - 1 - place])


def cut_at(upper: int, above: int, lower: Tensor, wanted: int) -> Cut:
    """The exact cut after the ``wanted`` largest elements.

    Args:
        upper: the upper half of the key there, from :func:`bin_of`.
        above: how many elements have larger upper halves.
        lower: ``[BINS]`` int64 counts of the lower halves of elements with this upper half.
        wanted: how many elements are to be chosen; fewer are where the others have the key 0.
    """
    place, more = bin_of(lower, wanted - above)
    key, above = upper << 16 | place, above + more
    return Cut(key, above, 0 if key == 0 else wanted - above)


NOTHING = Cut(_LARGEST, 0, 0)
"""The cut before all elements."""


@dataclass(frozen=True)
class Sides:
    """On which side of a cut the elements of a block are.

    Attributes:
        beyond: ``[n]`` bool, True for keys larger than that of the cut.
        tied: ``[n]`` bool, True for keys equal to it.
    """

    beyond: Tensor
    tied: Tensor


def sides_of(keys: Tensor, cut: Cut) -> Sides:
    """On which side of a cut keys are; ``[n]`` int32, on the host."""
    values = keys.numpy()
    return Sides(torch.from_numpy(values > cut.key), torch.from_numpy(values == cut.key))


class Chooser:
    """Tells the elements between two cuts, block by block in order.

    Args:
        cuts: where elements begin to be chosen, and where they end. Ties are told by order, so that every block must
            be given once.
    """

    def __init__(self, cuts: tuple[Cut, Cut]) -> None:
        self.cuts = cuts
        self._left = [cut.taken for cut in cuts]

    def choose(self, sides: Sequence[Sides]) -> Tensor:
        """Which elements of the next block are chosen, by their sides of both cuts: ``[n]`` bool."""
        begin, end = (self._before(which, each) for which, each in enumerate(sides))
        return end if self.cuts[0].count == 0 else end & ~begin

    def _before(self, which: int, sides: Sides) -> Tensor:
        if self._left[which] and bool(sides.tied.any()):
            ties = sides.tied.nonzero().view(-1)[: self._left[which]]
            sides.beyond[ties] = True
            self._left[which] -= len(ties)
        return sides.beyond


def quantiles(upper: Tensor, shares: Sequence[float], *, least: bool = False) -> list[float]:
    """Quantiles of scores from their counts, below the true ones by less than 1 % of their size.

    Args:
        upper: ``[BINS]`` int64, from :func:`count_upper`.
        shares: the quantiles that are wanted, such as 0.5 for the median.
        least: whether the counted keys are of the order turned round.
    """
    counts = upper.flip(0) if least else upper
    total = counts.cumsum(0)
    number = int(total[-1])
    if number == 0:
        return [0.0 for _ in shares]
    places = torch.tensor([max(1, int(share * number + 0.5)) for share in shares])
    # Turned round, a bin holds scores whose upper half is the complement; in both cases its least score is meant.
    # There are half as many patterns as bins, since no score is negative.
    bins = torch.searchsorted(total, places) - (BINS // 2 if least else 0)
    return [score_of(int(place) << 16) for place in bins]
