"""How reference samples are dealt out to ranks: every sample once, equally many batches everywhere."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipelines.basis.passes import split_rows


@given(count=st.integers(1, 60), batch_size=st.integers(1, 9), world_size=st.integers(1, 9))
def test_every_sample_counts_once(count: int, batch_size: int, world_size: int) -> None:
    samples = list(range(count))
    dealt = [list(split_rows(samples, batch_size, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in dealt}) == 1
    used = Counter(sample for batches in dealt for part, weight in batches if weight for sample in part)
    assert used == Counter(samples)
    assert all(1 <= len(part) <= batch_size for batches in dealt for part, _ in batches)
