"""Dealing samples out to ranks for a pass over all of them: each counts once, and the ranks stay in step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def deal(
    samples: Sequence[T],
    batch_size: int,
    *,
    length: Callable[[T], int],
    rank: int,
    world_size: int,
    same_sizes: bool = False,
) -> Iterator[tuple[list[T], float]]:
    """This rank's batches, longest samples first, and their weights; every rank gets the same number of batches.

    Batches of similar lengths waste little padding, and the order does not change a mean. Samples of equal length
    keep their order.

    Args:
        samples: all samples, the same on every rank; at least one.
        batch_size: the greatest number of samples in a batch.
        length: gives the length of a sample.
        rank: the rank of this process.
        world_size: the number of processes.
        same_sizes: whether batches must have the same sizes on all ranks: the samples that do not fill a batch on
            every rank are then dealt out one by one.

    Returns:
        the batches, each with weight 1, or weight 0 for a batch that only keeps the ranks in step.
    """
    ordered = sorted(samples, key=length, reverse=True)
    if not same_sizes:
        yield from split_rows(ordered, batch_size, rank, world_size)
        return
    whole = len(ordered) - len(ordered) % (batch_size * world_size)
    for part, size in ((ordered[:whole], batch_size), (ordered[whole:], 1)):
        if part:
            yield from split_rows(part, size, rank, world_size)


def deal_tokens(
    samples: Sequence[T], batch_size: int, *, length: Callable[[T], int], rank: int, world_size: int
) -> Iterator[tuple[list[T], float]]:
    """This rank's batches, longest samples first, each filled up to the padded tokens of the first one.

    No batch has more places, padding included, than ``batch_size`` of the longest samples have; short samples share a
    pass with more of their like. Boundaries are the same on every rank, and so is the number of batches. Samples of
    equal length keep their order.

    Args:
        samples: all samples, the same on every rank; at least one.
        batch_size: the number of the longest samples in a batch.
        length: gives the length of a sample.
        rank: the rank of this process.
        world_size: the number of processes.

    Returns:
        the batches, each with weight 1, or weight 0 for a batch that only keeps the ranks in step.
    """
    ordered = sorted(samples, key=length, reverse=True)
    mine = ordered[rank::world_size]
    # The first rank has the longest sample of each round.
    longest = [length(sample) for sample in ordered[::world_size]]
    budget = batch_size * longest[0]
    start = 0
    while start < len(longest):
        size = max(batch_size, budget // max(1, longest[start]))
        part = mine[start : start + size]
        yield (part, 1.0) if part else (ordered[-1:], 0.0)
        start += size


def split_rows(samples: Sequence[T], batch_size: int, rank: int, world_size: int) -> Iterator[tuple[list[T], float]]:
    """This rank's batches of ``samples`` in their order, and their weights; every rank gets the same number of batches.

    Every sample is used once over all ranks; a rank that has run out repeats its first batch with weight 0.
    """
    mine = list(samples[rank::world_size]) or [samples[0]]
    has_own = len(samples) > rank
    count = math.ceil(math.ceil(len(samples) / world_size) / batch_size)
    for index in range(count):
        part = mine[index * batch_size : (index + 1) * batch_size]
        yield (part, 1.0) if part and has_own else (mine[:batch_size], 0.0)
