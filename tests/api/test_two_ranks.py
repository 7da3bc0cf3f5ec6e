"""The Python API on two ranks: see ``two_ranks_worker``, one launch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.api.worlds import World, example
from tests.distributed.ranks import run_ranks

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
# Two ranks add in another order; the largest difference over all weights that was seen is 2e-6.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def found(world: World) -> dict[str, Any]:
    plain_loop = example("plain_loop")
    for space in ("gradient", "update"):
        plain_loop.train(plain_loop.parse(world.words(f"alone-{space}", space)))
        torch.save(world.weights(f"alone-{space}"), world.root / f"alone-{space}.pt")
    return run_ranks("tests.api.two_ranks_worker", world.root)


@pytest.mark.parametrize("space", ["gradient", "update"])
def test_a_loop_of_ones_own_under_ddp_equals_one_process_up_to_rounding(found: dict[str, Any], space: str) -> None:
    finding = found[f"own loop, {space}"]
    assert finding["difference"] < TOLERANCE
    assert finding["ranks agree"]


@pytest.mark.parametrize("engine", ["data parallel", "zero2", "zero2, resumed", "zero3"])
def test_trls_trainer_equals_the_command_of_as_many_ranks_to_the_bit(found: dict[str, Any], engine: str) -> None:
    assert found[engine] == 0.0
