"""Copies of weights: each its own while it is needed, in memory that is the same in every step."""

from __future__ import annotations

import random

import pytest
import torch

from pipelines.transforms.kept_weights import KeptWeights


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_a_step_never_touch_each_other(seed: int) -> None:
    drawn = random.Random(seed)
    kept = KeptWeights(most=drawn.choice((64, 500, 5000)))
    for step in range(6):
        weights = [torch.randn(drawn.randint(1, 300)) for _ in range(drawn.randint(1, 9))]
        wanted = [each.clone() for each in weights]
        copies = [kept.copy(each) for each in weights]
        for each in weights:
            each.fill_(torch.nan)
        for index, copied in enumerate(copies):
            assert torch.equal(copied, wanted[index])
            # What is written into one, as transforms do, is in no other.
            copied.neg_()
            wanted[index].neg_()
        assert all(map(torch.equal, copies, wanted))
        kept.release(again=step != 2)


def test_the_place_is_held_from_the_first_step_that_asks_for_it_and_no_larger_than_allowed() -> None:
    kept, weights = KeptWeights(most=100), torch.randn(90)
    kept.copy(weights)
    kept.release(again=False)
    assert kept.num_held == 0, "steps that are only logged do not hold memory"
    kept.copy(weights)
    kept.release(again=True)
    # In whole cache lines.
    assert kept.num_held == 96
    first = kept.copy(weights)
    beyond = kept.copy(weights)
    assert first.untyped_storage().data_ptr() != beyond.untyped_storage().data_ptr()
    kept.release(again=True)
    assert kept.num_held == 100
    second = kept.copy(weights).untyped_storage().data_ptr()
    kept.release(again=True)
    assert kept.copy(weights).untyped_storage().data_ptr() == second


def test_other_devices_and_types_get_copies_of_their_own() -> None:
    kept = KeptWeights(most=100)
    for weights in (torch.empty(10, device="meta"), torch.randn(10).bfloat16(), torch.randn(10).double()):
        copied = kept.copy(weights)
        assert (copied.dtype, copied.device) == (weights.dtype, weights.device)
        kept.release(again=True)
    assert kept.num_held == 0
