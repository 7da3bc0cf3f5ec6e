"""Memory figures of the plan against counts by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.configs.train import TrainSftConfig
from pipelines.core.config import resolve
from pipelines.training.plan import memory_per_rank

P = 1000


@pytest.mark.parametrize(
    ("engine", "ranks", "device", "host"),
    [
        # fp32 weights, gradients and two moments
        ({}, 1, 16 * P, 0),
        ({"zero": 0, "precision": "fp32"}, 4, 16 * P, 0),
        # bf16 weights and gradients, fp32 master and moments
        ({"zero": 0}, 4, 16 * P, 0),
        ({"zero": 1}, 4, (2 + 2 + 12 / 4) * P, 0),
        ({"zero": 2}, 4, (2 + 4 / 4 + 12 / 4) * P, 0),
        ({"zero": 3}, 4, (2 + 4 + 12) / 4 * P, 0),
        ({"zero": 2, "offload": True}, 4, (2 + 4 / 4) * P, 12 / 4 * P),
        ({"zero": 3, "offload": True}, 8, (2 + 4) / 8 * P, 12 / 8 * P),
    ],
)
def test_memory_per_rank(engine: dict[str, Any], ranks: int, device: float, host: float) -> None:
    config = resolve(TrainSftConfig, flags={"model": "m", "data": Path("d"), "out": Path("o"), **engine})
    assert memory_per_rank(P, config, ranks) == pytest.approx((device, host))
