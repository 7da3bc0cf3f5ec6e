"""A preset's learning rate is for what is really trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_registry.core.errors import ConfigError
from pipelines.configs.train import TrainSftConfig
from pipelines.training.inputs import training_inputs


class ReachedError(Exception):
    pass


def source(*, is_adapter: bool) -> Any:
    def records() -> None:
        raise ReachedError

    return SimpleNamespace(is_adapter=is_adapter, input_records=records)


def make(**options: Any) -> TrainSftConfig:
    return TrainSftConfig(model="m", data=Path("d"), out=Path("o"), anchor=Path("a"), preset="recommended", **options)


def test_a_rate_for_all_parameters_is_refused_for_an_adapter_that_goes_on() -> None:
    with pytest.raises(ConfigError, match="is an adapter, and --learning-rate 1e-05 of --preset recommended"):
        training_inputs(make(), source(is_adapter=True), task="sft")


@pytest.mark.parametrize(("options", "is_adapter"), [({"learning_rate": 2e-4}, True), ({}, False)])
def test_a_rate_by_hand_and_a_whole_model_are_not(options: dict[str, Any], is_adapter: bool) -> None:
    with pytest.raises(ReachedError):
        training_inputs(make(**options), source(is_adapter=is_adapter), task="sft")
