"""The examples give the commands' figures: to the bit where the order of operations is the same."""

from __future__ import annotations

import pytest

from tests.api.worlds import STEPS, World, example, largest_difference


@pytest.fixture(scope="module", params=["update", "gradient"])
def space(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def command(world: World, space: str):
    return world.command(space)


def test_a_plain_loop_gives_the_commands_weights_to_the_bit(world: World, space: str, command) -> None:
    plain_loop = example("plain_loop")
    figures = plain_loop.train(plain_loop.parse(world.words(f"plain-{space}", space)))
    assert largest_difference(world.weights(f"plain-{space}"), command) == 0.0
    assert {"projection/removed", "projection/leak/assist", "projection/conflict/reason"} <= figures.keys()
    leak = max(abs(figures[f"projection/leak/{name}"]) for name in ("assist", "reason"))
    assert leak < 1e-5 if space == "update" else leak > 1e-3


def test_with_the_models_own_loss_it_gives_them_up_to_rounding(world: World, command, space: str) -> None:
    # TRL's head computes the loss tile by tile, in another order of additions.
    plain_loop = example("plain_loop")
    plain_loop.train(plain_loop.parse(world.words(f"own-{space}", space, "--head", "own")))
    assert 0 < largest_difference(world.weights(f"own-{space}"), command) < 1e-4


def test_trls_trainer_gives_them_to_the_bit_stopped_and_gone_on(world: World, command, space: str) -> None:
    trl_sft = example("trl_sft")
    # Between two refreshes, so that the rows in force are not those that the basis has.
    words = world.words(f"trl-{space}", space, "--save-steps", "4")
    trainer = trl_sft.train(trl_sft.parse(words), disable_tqdm=True)
    assert largest_difference(world.weights(f"trl-{space}"), command) == 0.0
    logged = [line for line in trainer.state.log_history if "loss" in line]
    assert all("projection/removed" in line for line in logged)
    checkpoint = str(world.root / f"trl-{space}" / "checkpoint-4")
    again = trl_sft.train(
        trl_sft.parse(world.words(f"resumed-{space}", space, "--resume", checkpoint)), disable_tqdm=True
    )
    assert again.state.global_step == STEPS
    assert largest_difference(world.weights(f"resumed-{space}"), command) == 0.0
