"""Packing, replay, anchors and the held-out loss in stopped runs that go on: they are the run that never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.commands import sample
from pipelines.configs.sample import SampleConfig
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from tests.distributed import worlds
from tests.invariant.resume_worker import call, call_stopped, record

# Within the second epoch of the run with replay, and past the first measurements of those with a held-out loss.
STOP = 7


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("resume")
    worlds.make_model(directory / "model", dropout=0.1)
    for name, number, seed in (("data", 16, 1), ("other", 7, 2)):
        worlds.make_data(directory / name, number, seed=seed)
        worlds.make_pairs(directory / f"{name}-pairs", number, seed=seed)
    sample.run(
        SampleConfig(
            model=str(directory / "model"), data=directory / "other", out=directory / "samples", max_new_tokens=8,
            log_probs=16,
        )
    )  # fmt: skip
    return directory


def config(world: Path, out: Path, method: str, options: dict[str, Any]) -> TrainConfig:
    common: dict[str, Any] = {"model": str(world / "model"), "precision": "fp32", "schedule": "constant", "out": out}
    common |= {"batch_size": 4, "accumulation": 1, "learning_rate": 3e-3, "log_every": 3, "save_every": 0}
    if method == "dpo":
        return TrainDpoConfig(data=world / "data-pairs", **common, **options)
    return TrainSftConfig(data=world / "data", **common, **options)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sft", {"replay": "other", "replay_ratio": 0.3, "replay_mean": "pooled", "epochs": 3}),
        ("sft", {"anchor": "samples", "prompt_anchor": 0.5, "max_steps": 11}),
        ("sft", {"anchor": "samples", "anchor_kind": "hidden", "max_steps": 9}),
        ("dpo", {"anchor": "other", "anchor_kind": "ce", "prompt_anchor": 0.5, "max_steps": 9}),
        ("sft", {"packing": True, "max_length": 64, "epochs": 4}),
        ("sft", {"eval_data": "other", "eval_every": 2, "early_stopping": 3, "select": "best", "max_steps": 40}),
        ("dpo", {"eval_data": "other-pairs", "eval_every": 2, "select": "best", "max_steps": 9}),
    ],
    ids=["replay", "anchor", "hidden states", "anchor of DPO", "packing", "held-out loss", "held-out loss of DPO"],
)
def test_going_on_is_never_having_stopped(world: Path, tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    options = {
        key: world / value if key in ("replay", "anchor", "eval_data") else value for key, value in options.items()
    }
    whole = record(call(config(world, tmp_path / "whole", method, options)))
    stopping = config(world, tmp_path / "stopped", method, options)
    assert "saved; the same command goes on" in call_stopped(stopping, after=STOP)
    stopped = record(call(stopping))
    assert stopped["metrics"] == whole["metrics"]
    assert all(torch.equal(stopped["weights"][name], tensor) for name, tensor in whole["weights"].items())
    assert stopped["left"] == whole["left"] == []
