"""Rows that were left out as too long are counted in what is made without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_registry.core.manifest import read_manifest
from data_registry.prepared import load_prepared
from pipelines.commands import build_basis, train_dpo, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.tokens.conversations import encode_dataset
from pipelines.tokens.fitting import length_of_pair
from pipelines.tokens.pairs import encode_pairs
from pipelines.tokens.tokenizer import load_tokenizer
from tests.distributed import worlds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("left-out")
    worlds.make_model(directory / "model")
    worlds.make_data(directory / "data", 8, seed=1)
    worlds.make_pairs(directory / "pairs", 8, seed=2)
    return directory


def lengths(world: Path, name: str) -> list[int]:
    tokenizer = load_tokenizer(world / "model")
    rows, _ = load_prepared(world / name)
    if name == "pairs":
        return [length_of_pair(pair) for pair in encode_pairs(rows, tokenizer, None, name="pairs")]
    return [len(row["input_ids"]) for row in encode_dataset(rows, tokenizer, None, name="data")]


@pytest.mark.parametrize("kind", ["sft", "dpo", "basis"])
def test_a_result_says_how_many_rows_it_was_made_without(world: Path, tmp_path: Path, kind: str) -> None:
    name = "pairs" if kind == "dpo" else "data"
    found = lengths(world, name)
    longest = max(found)
    number = found.count(longest)
    assert 0 < number < 8
    common: dict[str, Any] = {"model": str(world / "model"), "precision": "fp32", "drop_too_long": True}
    made = {}
    for limit in (longest - 1, longest):
        out = tmp_path / str(limit)
        values = {**common, "out": out, "max_length": limit}
        if kind == "basis":
            build_basis.run(BuildBasisConfig(reference=[world / name], **values))
        else:
            values |= {"data": world / name, "max_steps": 1, "batch_size": 2, "accumulation": 1}
            train_sft.run(TrainSftConfig(**values)) if kind == "sft" else train_dpo.run(TrainDpoConfig(**values))
        made[limit] = out
    called = {"sft": "training rows", "dpo": "training pairs", "basis": "data"}[kind]
    assert read_manifest(made[longest - 1]).summary["left_out"] == {called: number}
    assert "left_out" not in read_manifest(made[longest]).summary
    if kind != "basis":
        said = f"Left out, because they are too long: {number} {called}."
        assert said in (made[longest - 1] / "model" / "README.md").read_text()
        assert "Left out" not in (made[longest] / "model" / "README.md").read_text()
