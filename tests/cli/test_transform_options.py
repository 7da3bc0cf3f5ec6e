"""The options of what acts in a step: what they mean together, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from tests.cli.conftest import Cli

CLASSES = [TrainSftConfig, TrainDpoConfig]


def make(config_class: Any, **options: Any) -> Any:
    return config_class(model="m", data=Path("d"), out=Path("o"), **options)


@pytest.mark.parametrize("config_class", CLASSES)
def test_patterns_are_split_at_commas(config_class: Any) -> None:
    assert make(config_class, freeze=["norms, embeddings", "head.*"]).freeze == ["norms", "embeddings", "head.*"]
    assert make(config_class).freeze == []


@pytest.mark.parametrize("config_class", CLASSES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "layer"}, "--scope needs --basis: it has no effect otherwise"),
        ({"momentum": "reproject"}, "--momentum reproject needs --basis"),
        (
            {"momentum": "reproject", "basis": Path("b"), "space": "update"},
            "--momentum reproject needs --space gradient",
        ),
        (
            {"momentum": "reproject", "basis": Path("b"), "refresh_every": 0},
            "--momentum reproject needs a --refresh-every other than 0",
        ),
        ({"max_drift": 30.0, "basis": Path("b")}, "--max-drift needs --refresh-every auto"),
        (
            {"refresh_every": "often", "basis": Path("b")},
            "must be a number of steps, 0 or more, or 'auto', got 'often'",
        ),
        ({"refresh_every": -1, "basis": Path("b")}, "must be a number of steps, 0 or more, or 'auto', got -1"),
        ({"refresh_every": 2.5, "basis": Path("b")}, "or 'auto', got 2.5"),
        ({"track_change": True, "eval_split": 0.2, "select": "best"}, "--select best saves the weights of another"),
    ],
)
def test_what_does_not_go_together_is_refused(config_class: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(config_class, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("config_class", CLASSES)
def test_a_basis_is_refreshed_every_so_many_steps_or_as_it_turns(config_class: Any) -> None:
    for given, meant in (("auto", "auto"), ("7", 7), (7.0, 7), (0, 0)):
        assert make(config_class, basis=Path("b"), refresh_every=given).refresh_every == meant


def test_everything_else_goes_together() -> None:
    for space in ("gradient", "update"):
        for scope in ("tensor", "layer", "global"):
            momentum = "reproject" if space == "gradient" else "keep"
            make(
                TrainSftConfig,
                basis=Path("b"),
                space=space,
                scope=scope,
                momentum=momentum,
                freeze=["norms"],
                track_change=True,
            )


def test_patterns_without_a_parameter_end_with_one_error_and_nothing_made(cli: Cli, made: Path) -> None:
    outcome = cli(
        "train-sft", made / "model", "--data", made / "safety", "--freeze", "embedings,norms", "--max-steps", "1",
        "--precision", "fp32", "--num-procs", "1", "--out", "run",
    )  # fmt: skip
    assert outcome.code == 2
    assert "--freeze embedings names no parameter that is trained (did you mean 'embeddings'?)" in outcome.err
    assert "Traceback" not in outcome.err
    assert list(Path.cwd().iterdir()) == []


def test_an_optimizer_without_momentum_is_refused_by_name(cli: Cli, made: Path) -> None:
    outcome = cli(
        "train-sft", made / "model", "--data", made / "safety", "--basis", made / "basis", "--momentum", "reproject",
        "--set", "trainer.optim=adafactor", "--max-steps", "1", "--num-procs", "1", "--out", "run",
    )  # fmt: skip
    assert outcome.code == 2
    assert "--momentum reproject does not serve the optimizer Adafactor" in outcome.err
    assert not Path("run").exists()


def test_the_plan_says_what_acts_in_a_step(cli: Cli, made: Path) -> None:
    outcome = cli(
        "train-sft", made / "model", "--data", made / "safety", "--basis", made / "basis", "--scope", "layer",
        "--freeze", "norms,embeddings", "--track-change", "--num-procs", "1", "--out", "run", "--dry-run",
    )  # fmt: skip
    assert outcome.code == 0
    assert "a subspace for each layer" in outcome.out
    assert "norms, embeddings" in outcome.out
    assert "tracked" in outcome.out
