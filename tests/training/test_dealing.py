"""Rows dealt out to ranks: each once an epoch, whatever the numbers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, SequentialSampler

from pipelines.training.data.dealing import Dealing, DealtBatches, LengthGroupedOrder, real_rows_gathered

numbers = st.integers(1, 60), st.integers(1, 7), st.integers(1, 5)


def dealt(num_rows: int, batch_size: int, num_ranks: int, *, drop_last: bool = False) -> list[list[list[int]]]:
    batches = BatchSampler(SequentialSampler(range(num_rows)), batch_size, drop_last)
    dealing = Dealing(num_rows, batch_size, num_ranks, drop_last)
    return [list(DealtBatches(batches, dealing, rank)) for rank in range(num_ranks)]


def real_rows(num_rows: int, batch_size: int, num_ranks: int, **options: Any) -> list[list[int]]:
    """The rows of each forward pass, over all ranks and without stand-ins."""
    dealing = Dealing(num_rows, batch_size, num_ranks, **options)
    passes = zip(*dealt(num_rows, batch_size, num_ranks, **options), strict=True)
    return [
        [row for batch, size in zip(ranks, dealing.sizes(index), strict=True) for row in batch[:size]]
        for index, ranks in enumerate(passes)
    ]


@given(*numbers)
@settings(max_examples=200, deadline=None)
def test_every_row_once_and_ranks_in_step(num_rows: int, batch_size: int, num_ranks: int) -> None:
    ranks = dealt(num_rows, batch_size, num_ranks)
    assert len({len(batches) for batches in ranks}) == 1
    assert all(1 <= len(batch) <= batch_size for batches in ranks for batch in batches)
    assert list(itertools.chain(*real_rows(num_rows, batch_size, num_ranks))) == list(range(num_rows))
    # At most one row apart: no rank waits for another.
    sizes = [Dealing(num_rows, batch_size, num_ranks).sizes(index) for index in range(len(ranks[0]))]
    assert all(max(ranks) - min(ranks) <= 1 for ranks in sizes)


@given(*numbers)
@settings(max_examples=100, deadline=None)
def test_rows_that_divide_go_where_accelerate_puts_them(batches_each: int, batch_size: int, num_ranks: int) -> None:
    num_rows = batches_each * batch_size * num_ranks
    batches = BatchSampler(SequentialSampler(range(num_rows)), batch_size, drop_last=False)
    theirs = [list(BatchSamplerShard(batches, num_ranks, rank)) for rank in range(num_ranks)]
    assert dealt(num_rows, batch_size, num_ranks) == theirs
    assert Dealing(num_rows, batch_size, num_ranks).is_even


@given(*numbers)
@settings(max_examples=100, deadline=None)
def test_rows_left_out_on_request_are_the_last(num_rows: int, batch_size: int, num_ranks: int) -> None:
    together = batch_size * num_ranks
    passes = real_rows(num_rows, batch_size, num_ranks, drop_last=True)
    assert list(itertools.chain(*passes)) == list(range(num_rows // together * together))


@pytest.mark.parametrize(("layout"), [(8, 1), (4, 2), (2, 4)])
def test_a_step_has_the_same_rows_whatever_the_number_of_ranks(layout: tuple[int, int]) -> None:
    batch_size, num_ranks = layout
    assert real_rows(21, batch_size, num_ranks) == real_rows(21, 8, 1)


def test_rows_of_similar_lengths_in_an_order_of_seed_and_epoch() -> None:
    lengths = torch.randint(1, 500, (203,), generator=torch.Generator().manual_seed(0)).tolist()
    order = LengthGroupedOrder(lengths, 8, seed=3)
    first = list(order)
    torch.rand(7)
    assert list(order) == first
    assert sorted(first) == list(range(203))
    order.set_epoch(1)
    assert list(order) != first
    spread = [max(part) - min(part) for part in (([lengths[i] for i in first[k : k + 8]]) for k in range(0, 200, 8))]
    assert sum(spread) / len(spread) < 150


class Accelerator:
    """Gathers what a test gives for the other ranks."""

    def __init__(self, others: list[torch.Tensor]) -> None:
        self.others = others

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor.reshape(-1, *tensor.shape[1:]), *self.others])


def test_figures_are_those_of_real_rows() -> None:
    accelerator = Accelerator([torch.tensor([5.0, 6.0]), torch.tensor([9.0, 9.0])])
    with real_rows_gathered(accelerator, [1, 2, 0], 0):
        assert accelerator.gather(torch.tensor([4.0])).tolist() == [4.0, 5.0, 6.0]
    accelerator = Accelerator([torch.tensor([5.0])])
    with real_rows_gathered(accelerator, [0, 1], 0):
        # A stand-in's sums count nothing.
        assert accelerator.gather(torch.tensor(3.0)).tolist() == [0.0, 5.0]
        assert accelerator.gather(torch.tensor([3.0])).tolist() == [5.0]
