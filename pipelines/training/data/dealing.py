"""Which rows a rank takes in each forward pass of training: every row once an epoch, whatever the number of ranks.

accelerate repeats rows from the beginning of an epoch where they do not divide over the ranks. Here the rows that are
left are dealt out as evenly as they can be, and a rank that gets none is given a row that only keeps it in step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch import Tensor
from torch.utils.data import BatchSampler
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices


@dataclass(frozen=True)
class Dealing:
    """The numbers of rows that the ranks take in the forward passes of an epoch.

    Attributes:
        num_rows: the number of rows of an epoch.
        batch_size: the greatest number of rows in a rank's forward pass.
        num_ranks: the number of ranks.
        drop_last: whether rows that do not fill a forward pass on all ranks are left out.
    """

    num_rows: int
    batch_size: int
    num_ranks: int
    drop_last: bool = False

    @property
    def num_used(self) -> int:
        """The number of rows that an epoch really takes."""
        together = self.batch_size * self.num_ranks
        return self.num_rows // together * together if self.drop_last else self.num_rows

    @property
    def num_passes(self) -> int:
        """The number of forward passes of an epoch, the same on every rank."""
        return math.ceil(self.num_used / (self.batch_size * self.num_ranks))

    @property
    def is_even(self) -> bool:
        """Whether all ranks take as many rows in every forward pass."""
        return self.num_used % (self.batch_size * self.num_ranks) == 0

    def sizes(self, index: int) -> list[int]:
        """The number of rows of each rank in forward pass ``index`` of an epoch, counted from 0."""
        together = self.batch_size * self.num_ranks
        share, extra = divmod(min(together, self.num_used - index * together), self.num_ranks)
        return [share + (rank < extra) for rank in range(self.num_ranks)]


class DealtBatches(BatchSampler):
    """One rank's batches of row numbers, as many on every rank; together they have every row once.

    Args:
        batches: the batches of all ranks, one after another.
        dealing: the numbers of rows.
        rank: the rank of this process.
    """

    def __init__(self, batches: BatchSampler, dealing: Dealing, rank: int) -> None:
        self._batches, self._dealing, self._rank = batches, dealing, rank
        # The sampler of single rows, which is told the epoch.
        self.sampler = batches.sampler

    def __len__(self) -> int:
        return self._dealing.num_passes

    def __iter__(self) -> Iterator[list[int]]:
        rows = (row for batch in self._batches for row in batch)
        for index in range(len(self)):
            sizes = self._dealing.sizes(index)
            taken = [next(rows) for _ in range(sum(sizes))]
            start = sum(sizes[: self._rank])
            # The loader wants a row; the trainer puts its stand-in in place of the batch.
            yield taken[start : start + sizes[self._rank]] or taken[:1]


def deal_rows(loader: Any, rank: int, num_ranks: int) -> Dealing | None:
    """Have a prepared loader deal its rows out once each, and say how many every rank takes.

    Args:
        loader: the loader that accelerate has made for this rank; changed in place.
        rank: the rank of this process.
        num_ranks: the number of ranks.

    Returns:
        the numbers of rows; None for a sampler that divides the rows itself.
    """
    shard = loader.batch_sampler
    batches = shard.batch_sampler if isinstance(shard, BatchSamplerShard) else shard
    if type(batches) is not BatchSampler:
        return None
    rows: Any = batches.sampler
    dealing = Dealing(len(rows), batches.batch_size, num_ranks, batches.drop_last)
    if isinstance(shard, BatchSamplerShard):
        shard.batch_sampler = DealtBatches(batches, dealing, rank)
        # Transformers does the same to a sampler that is a rank's own: accelerate then takes its batches as they are.
        shard.num_processes, shard.process_index, shard.batch_size = 1, 0, None
        # Without this, a loader that skips the batches already done does not tell the sampler the epoch.
        shard.sampler = batches.sampler
    return dealing


class LengthGroupedOrder(LengthGroupedSampler):
    """Rows of similar lengths side by side, in an order that depends on the seed and the epoch alone.

    transformers' own sampler draws from each rank's generator, so that ranks whose dropout has drawn differently have
    different orders, and a resumed run has another than the run that was stopped. Its groups are those of one rank.

    Args:
        lengths: the number of tokens of each row.
        rows_per_step: the number of rows of an optimizer step, over all ranks; lengths are alike within a step.
        seed: the seed of the order.
    """

    def __init__(self, lengths: list[int], rows_per_step: int, seed: int) -> None:
        super().__init__(rows_per_step, lengths=lengths)
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration is for."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


@contextlib.contextmanager
def real_rows_gathered(accelerator: Any, sizes: Sequence[int], rank: int) -> Iterator[None]:
    """A context in which ``accelerator.gather`` takes figures of rows, and sums over rows, from real rows alone.

    Ranks may have different numbers of rows in it, which accelerate's own gathering does not allow.

    Args:
        accelerator: the accelerator.
        sizes: the number of real rows of each rank in this forward pass.
        rank: the rank of this process.
    """
    gather, longest, mine = accelerator.gather, max(sizes), sizes[rank]

    def gather_rows(tensor: Tensor) -> Tensor:
        if tensor.ndim == 0:
            return gather(tensor if mine else torch.zeros_like(tensor))
        padded = tensor.new_zeros(longest, *tensor.shape[1:])
        padded[:mine] = tensor[:mine]
        parts = gather(padded).split(longest)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    accelerator.gather = gather_rows
    try:
        yield
    finally:
        del accelerator.gather
