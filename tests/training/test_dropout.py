"""Losses that compare a model with what it was see no dropout, wherever the model has it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pipelines.commands import train_dpo, train_npo
from pipelines.configs.train import TrainDpoConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.training.metrics import read_metrics
from tests.distributed import worlds

OPTIONS: dict[str, Any] = {"precision": "fp32", "batch_size": 4, "accumulation": 1, "max_steps": 1, "log_every": 1,
                           "save_every": 0}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dropout")
    worlds.make_model(directory / "model", dropout=0.5)
    worlds.make_pairs(directory / "pairs", 8, seed=4)
    return directory


@pytest.mark.parametrize("kind", ["dpo", "npo"])
def test_a_model_that_drops_attention_weights_begins_as_what_it_was(world: Path, tmp_path: Path, kind: str) -> None:
    common = {**OPTIONS, "model": str(world / "model"), "data": world / "pairs"}
    if kind == "dpo":
        made = train_dpo.run(TrainDpoConfig(**common, out=tmp_path / "run"))
        dropped = train_dpo.run(TrainDpoConfig(**common, out=tmp_path / "b", trainer={"disable_dropout": False}))
        assert abs(first_loss(dropped.path) - math.log(2)) > 1e-3
    else:
        made = train_npo.run(TrainNpoConfig(**common, out=tmp_path / "run"))
    assert first_loss(made.path) == pytest.approx(math.log(2), abs=1e-6)


def first_loss(run: Path) -> float:
    return float(next(line["loss"] for line in read_metrics(run / "metrics.jsonl") if "loss" in line))
