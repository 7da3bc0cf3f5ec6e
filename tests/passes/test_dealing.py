"""How samples are dealt out to ranks: every sample once, equally many batches everywhere."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipelines.passes.dealing import deal, deal_tokens, split_rows


@given(count=st.integers(1, 60), batch_size=st.integers(1, 9), world_size=st.integers(1, 9))
def test_every_sample_counts_once(count: int, batch_size: int, world_size: int) -> None:
    samples = list(range(count))
    dealt = [list(split_rows(samples, batch_size, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in dealt}) == 1
    used = Counter(sample for batches in dealt for part, weight in batches if weight for sample in part)
    assert used == Counter(samples)
    assert all(1 <= len(part) <= batch_size for batches in dealt for part, _ in batches)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 9),
    same_sizes=st.booleans(),
)
def test_the_longest_come_first_and_ranks_stay_in_step(
    lengths: list[int], batch_size: int, world_size: int, same_sizes: bool
) -> None:
    dealt = [
        list(
            deal(
                range(len(lengths)),
                batch_size,
                length=lambda sample: lengths[sample],
                rank=rank,
                world_size=world_size,
                same_sizes=same_sizes,
            )
        )
        for rank in range(world_size)
    ]
    used = Counter(sample for batches in dealt for part, weight in batches if weight for sample in part)
    assert used == Counter(range(len(lengths)))
    for batches in dealt:
        order = [sample for part, weight in batches if weight for sample in part]
        assert order == sorted(order, key=lambda sample: (-lengths[sample], sample))
    sizes = [[len(part) for part, _ in batches] for batches in dealt]
    assert len({len(of_rank) for of_rank in sizes}) == 1
    assert all(size <= batch_size for of_rank in sizes for size in of_rank)
    assert not same_sizes or all(of_rank == sizes[0] for of_rank in sizes)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 9),
)
def test_batches_are_filled_up_to_the_tokens_of_the_longest(
    lengths: list[int], batch_size: int, world_size: int
) -> None:
    dealt = [
        list(deal_tokens(range(len(lengths)), batch_size, length=lengths.__getitem__, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in dealt}) == 1
    used = Counter(sample for batches in dealt for part, weight in batches if weight for sample in part)
    assert used == Counter(range(len(lengths)))
    parts = [part for batches in dealt for part, _ in batches]
    assert all(len(part) * max(lengths[sample] for sample in part) <= batch_size * max(lengths) for part in parts)
    # Never more passes than with a fixed number of samples.
    assert len(dealt[0]) <= -(-len(lengths) // (world_size * batch_size))
    # A batch is full: one more sample of its longest kind would not have fitted.
    for part, _ in dealt[0][:-1]:
        assert (len(part) + 1) * lengths[part[0]] > batch_size * max(lengths)
