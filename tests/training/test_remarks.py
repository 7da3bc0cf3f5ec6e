"""What is said of a run whose loss did not move, or whose learning rate is far from what its kind needs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from data_registry.core.manifest import InputRecord
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.training.card import model_card
from pipelines.training.remarks import learned, losses_of, remarks


def said(losses: list[float], *, adapters: bool = False, **options: Any) -> list[str]:
    config = TrainSftConfig(model="m", data=Path("d"), out=Path("o"), **{"learning_rate": 1e-5, **options})
    lines = [{"step": step, "loss": loss} for step, loss in enumerate(losses, start=1)]
    return remarks(config, [*lines, {"step": len(losses), "train_runtime": 1.0}], losses, adapters=adapters)


def noisy(start: float, end: float, *, steps: int = 40, noise: float = 0.1, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [start + (end - start) * k / (steps - 1) + generator.gauss(0, noise) for k in range(steps)]


@pytest.mark.parametrize(
    ("rate", "adapters", "expected"),
    [
        (1e-6, True, "very low for training adapters"),
        (1e-6, False, None),
        (2e-4, True, None),
        (1e-3, False, "very high for training all parameters"),
        (3e-4, False, None),
        (1e-9, False, "very low for training all parameters"),
        (2e-2, True, "very high for training adapters"),
    ],
)
def test_learning_rates_of_each_kind(rate: float, adapters: bool, expected: str | None) -> None:
    found = said(noisy(2.0, 1.0), adapters=adapters, learning_rate=rate)
    assert len(found) == (0 if expected is None else 1)
    assert expected is None or expected in found[0]


def test_other_optimizers_have_other_learning_rates() -> None:
    assert said(noisy(2.0, 1.0), learning_rate=0.1, trainer={"optim": "sgd"}) == []


@pytest.mark.parametrize(("warmup", "expected"), [(0, 0), (0.5, 0), (40, 0), (41, 1), (1000, 1)])
def test_a_warmup_that_outlasts_the_run(warmup: float, expected: int) -> None:
    found = said(noisy(2.0, 1.0), warmup_steps=warmup)
    assert len(found) == expected
    assert all("more than the run's steps, 40: --learning-rate 1e-05 was never reached" in text for text in found)


@pytest.mark.parametrize(("last", "expected"), [(-1.9, 0), (-2.1, 1), (-40.0, 1), (-0.5, 0)])
def test_a_run_that_forgets_more_than_it_was_to(last: float, expected: int) -> None:
    measured = [{"step": step, "eval_chosen_log_prob": value} for step, value in enumerate((-1.0, -1.5, last))]
    config = TrainNpoConfig(model="m", data=Path("d"), out=Path("o"))
    found = remarks(config, measured, [], adapters=False)
    assert len(found) == expected
    assert all(text.startswith("held-out chosen answers became far less likely: -1 nats a token") for text in found)


@pytest.mark.parametrize("seed", range(20))
def test_losses_that_only_differ_between_steps_have_not_moved(seed: int) -> None:
    # Two standard errors are exceeded by chance once in twenty times, and a fall is then a fall of noise.
    texts = said(noisy(2.0, 2.0, noise=0.02, seed=seed))
    assert len(texts) == 1
    assert "did not move" in texts[0]
    assert said(noisy(2.0, 1.5, seed=seed)) == []
    assert "rose" in said(noisy(2.0, 3.0, seed=seed))[0]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([], []), ([2.0], []), ([2.0, 1.5], []), ([2.0, 1.999], ["did not move"]), ([2.0, 1.9, 1.6, 1.5], [])],
)
def test_short_runs(losses: list[float], expected: list[str]) -> None:
    found = said(losses)
    assert len(found) == len(expected)
    assert all(word in text for word, text in zip(expected, found, strict=True))


def test_the_card_says_it() -> None:
    config = TrainDpoConfig(model="m", data=Path("d"), out=Path("o"))
    record = InputRecord(role="model", path="m", kind="model", fingerprint="0" * 64)
    assert "> **Note:** it stood still." in model_card(config, "DPO", [record], {"remarks": ["it stood still"]})
    assert "Note" not in model_card(config, "DPO", [record], {"loss": 1.0})


def test_a_run_that_stood_still_is_told_what_to_do() -> None:
    (found,) = said(noisy(2.0, 2.0, steps=12, noise=0.2), learning_rate=1e-6)
    assert "did not move" in found
    assert "little was learned; give a higher --learning-rate (now 1e-06;" in found
    assert "more steps (now 12: --epochs or --max-steps)" in found


def test_what_was_learned_is_one_sentence() -> None:
    assert learned([4.0, 3.0, 2.0, 1.0], 0.00123) == (
        "the training loss fell from 4 to 1; the weights moved by 0.0012 of their norm"
    )
    assert learned(noisy(1.0, 2.0), None).startswith("the training loss rose from ")
    assert "(means of the first and the last 10 of 40 values)" in learned(noisy(1.0, 2.0), None)
    assert learned(noisy(2.0, 2.0), 1e-5).startswith("the training loss did not move (1.983 in")
    assert learned([2.0], None) == "the training loss was 2 in the one step that was logged"


def test_a_short_run_is_judged_by_every_step_and_others_by_what_was_logged() -> None:
    logged = [{"step": 5, "loss": 2.0}, {"step": 10, "loss": 1.0}]
    assert losses_of(logged, {8: 1.0, 9: 1.0}) == [2.0, 1.0]
    assert losses_of(logged, {0: 3.0, 1: 2.5}) == [3.0, 2.5]
    assert losses_of([*logged, *logged], {0: 3.0, 1: 2.5}) == [2.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize(("end", "steps", "expected"), [(1.9, 12, 1), (1.9, 60, 0), (1.2, 12, 0)])
def test_few_steps_that_hardly_lowered_the_loss(end: float, steps: int, expected: int) -> None:
    found = said(noisy(2.0, end, steps=steps, noise=0.001))
    assert len(found) == expected
    assert all("hardly fell" in text for text in found)


def test_a_loss_that_moved_within_the_noise_of_few_steps_is_not_said_to_have_stood_still() -> None:
    assert learned([3.4, 3.8, 2.1, 2.2, 4.0, 1.9], 1e-3).startswith("the training loss moved no more than single steps")
    assert learned([2.0, 2.0, 2.0, 2.0], 1e-3).startswith("the training loss did not move (2 in")
