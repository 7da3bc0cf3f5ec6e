"""What a run says of itself when it is done is the same whether it was stopped on its way or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_registry.core.errors import Preempted
from pipelines.commands import train_dpo, train_sft
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from tests.distributed import worlds
from tests.invariant.resume_worker import call_stopped

KINDS: dict[str, tuple[Any, Any]] = {
    "sft": (TrainSftConfig, train_sft.run),
    "dpo": (TrainDpoConfig, train_dpo.run),
}
# Nothing is logged between the first step and the last, so that only the losses of the steps tell how training went.
SELDOM: dict[str, Any] = {"max_steps": 8, "log_every": 100}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("continued-summary")
    worlds.make_model(directory / "model", dropout=0.0)
    worlds.make_data(directory / "sft", 12, seed=1)
    worlds.make_pairs(directory / "dpo", 12, seed=2)
    return directory


def config_of(world: Path, kind: str, out: Path, **given: Any) -> Any:
    values = {"precision": "fp32", "batch_size": 2, "accumulation": 2, "save_every": 0, **SELDOM, **given}
    return KINDS[kind][0](model=str(world / "model"), data=world / kind, out=out, **values)


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["summary"]
    return found


@pytest.mark.parametrize(
    ("kind", "rate", "stops"),
    [("sft", 1e-2, (3,)), ("sft", 1e-8, (1, 4)), ("dpo", 1e-2, (2, 3))],
    ids=["learns", "learns nothing", "pairs"],
)
def test_what_was_learned_and_remarked(world: Path, tmp_path: Path, kind: str, rate: float, stops: tuple[int]) -> None:
    run = KINDS[kind][1]
    whole = summary(run(config_of(world, kind, tmp_path / "whole", learning_rate=rate)).path)
    config = config_of(world, kind, tmp_path / "stopped", learning_rate=rate)
    for after in stops:
        assert call_stopped(config, after=after).startswith(str(Preempted.exit_code))
    continued = summary(run(config).path)
    assert continued["learned"] == whole["learned"]
    assert continued.get("remarks") == whole.get("remarks")
    # The whole run was judged by all its steps: where it moved, by means of two of eight.
    assert ("of 8 values" in whole["learned"]) == (rate > 1e-3)
    assert ("little was learned" in str(whole.get("remarks"))) == (rate < 1e-3)
