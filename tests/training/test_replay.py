"""Replay: exact numbers, an order that depends on the seed alone, and what the model is really given."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_registry.core.errors import ConfigError
from pipelines.configs.train import TrainSftConfig
from pipelines.models.reference import resolve_model
from pipelines.training import sft
from pipelines.training.data.replay import Mixture
from tests.distributed import worlds


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 40), st.sampled_from([0.05, 0.1, 0.25, 1 / 3, 0.5, 0.9]), st.integers(0, 1000)
)
def test_numbers_are_exact(safety: int, available: int, ratio: float, seed: int) -> None:
    wanted = safety * ratio / (1 - ratio)
    try:
        mixture = Mixture(safety, available, ratio, seed)
    except ConfigError:
        assert wanted <= 0.5 + 1e-9
        return
    assert abs(mixture.num_replay - wanted) <= 0.5 + 1e-9
    used: Counter[int] = Counter()
    for number in range(4):
        rows = mixture.epoch(number)
        assert len(rows) == len(mixture)
        assert sorted(row for row in rows if row < safety) == list(range(safety))
        replay = [row - safety for row in rows if row >= safety]
        assert len(replay) == mixture.num_replay
        used.update(replay)
        # Spread evenly: a batch taken anywhere has its share, to one sample.
        for stop in range(len(rows)):
            share = sum(row >= safety for row in rows[:stop])
            assert abs(share - stop * mixture.num_replay / len(rows)) < 1
    assert set(used) <= set(range(available))
    counts = [used[row] for row in range(available)]
    assert max(counts) - min(counts) <= 1


def test_order_follows_from_the_seed() -> None:
    mixture, same, other = (Mixture(20, 9, 0.5, seed) for seed in (1, 1, 2))
    assert mixture.epoch(0) == same.epoch(0)
    assert mixture.epoch(0) != mixture.epoch(1)
    assert mixture.epoch(0) != other.epoch(0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("replay")
    worlds.make_model(directory / "model")
    worlds.make_data(directory / "safety", 18, seed=1)
    worlds.make_data(directory / "general", 7, seed=2)
    return directory


def rows_seen(world: Path, out: Path, **options: Any) -> Counter[tuple[int, ...]]:
    """The rows in what the model's first layer is given in a whole run, by their tokens."""
    values: dict[str, Any] = {
        "precision": "fp32",
        "replay_mean": "pooled",
        "epochs": 2,
        "batch_size": 3,
        "accumulation": 2,
        **options,
    }
    config = TrainSftConfig(
        model=str(world / "model"), data=world / "safety", replay=world / "general", out=out, **values
    )
    trainer = sft.make_trainer(config, resolve_model(config.model), None, out, torch.device("cpu"))
    seen: Counter[tuple[int, ...]] = Counter()

    def note(module: Any, arguments: Any) -> None:
        if module.training:
            for row in arguments[0]:
                seen.update(split_rows(row.tolist()))

    trainer.model.get_input_embeddings().register_forward_pre_hook(note)
    trainer.train()
    return seen


def split_rows(ids: list[int]) -> list[tuple[int, ...]]:
    """Rows in a sequence of tokens: each begins with the token that the first one begins with; padding is 0."""
    starts = [index for index, token in enumerate(ids) if token == ids[0]]
    parts = [ids[a:b] for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
    return [tuple(token for token in part if token != 0) for part in parts]


@pytest.mark.parametrize("packing", [False, True])
def test_the_model_sees_what_was_asked_for(world: Path, packing: bool, tmp_path: Path) -> None:
    seen = rows_seen(world, tmp_path, replay_ratio=0.25, packing=packing, max_length=128)
    safety, general = (
        [tuple(row["input_ids"]) for row in worlds.encoded(world / name, world / "model")]
        for name in ("safety", "general")
    )
    assert set(seen) <= {*safety, *general}
    assert [seen[row] for row in safety] == [2] * 18
    counts = [seen[row] for row in general]
    assert sum(counts) == 2 * 6
    # Without packing the second epoch goes on where the first one ended.
    assert sorted(counts) == ([0, 2, 2, 2, 2, 2, 2] if packing else [1, 1, 2, 2, 2, 2, 2])
