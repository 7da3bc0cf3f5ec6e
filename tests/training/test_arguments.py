"""What our options become in the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import get_scheduler
from trl import DPOConfig, SFTConfig

from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.training.arguments import trainer_arguments


def arguments(tmp_path: Path, **options: Any) -> Any:
    config = TrainSftConfig(model="m", data=tmp_path, out=tmp_path / "out", precision="fp32", **options)
    return trainer_arguments(SFTConfig, config, tmp_path, None)


def rates(made: Any, steps: int) -> list[float]:
    """The learning rate of each step, over the peak."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(made.lr_scheduler_type, optimizer, made.get_warmup_steps(steps), steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1, 1, 1, 1, 1]),
        ("constant", 4, [0, 1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1]),
        ("constant", 0.25, [0, 1 / 2, 1, 1, 1, 1, 1, 1]),
        ("constant_with_warmup", 2, [0, 1 / 2, 1, 1, 1, 1, 1, 1]),
        ("linear", 2, [0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("linear", 0.25, [0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
    ],
)
def test_warm_up_is_what_was_asked_for(tmp_path: Path, schedule: str, warmup: float, expected: list[float]) -> None:
    made = arguments(tmp_path, schedule=schedule, warmup_steps=warmup, learning_rate=1.0)
    assert rates(made, 8) == pytest.approx(expected)


def test_dropout_of_adapters_is_not_turned_off_by_dpo(tmp_path: Path) -> None:
    def made(**options: Any) -> Any:
        config = TrainDpoConfig(model="m", data=tmp_path, out=tmp_path / "out", precision="fp32", **options)
        return trainer_arguments(DPOConfig, config, tmp_path, None)

    assert made().disable_dropout
    assert not made(lora_rank=4, lora_dropout=0.1).disable_dropout
    assert made(lora_rank=4, lora_dropout=0.1, trainer={"disable_dropout": True}).disable_dropout
