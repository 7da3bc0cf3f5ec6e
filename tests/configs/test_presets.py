"""Presets: what they fill, what wins over them, what they need, and how it is told where a value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from data_registry.core.errors import ConfigError
from pipelines.configs.commands import BY_NAME
from pipelines.configs.presets import PresetName, load_presets
from pipelines.configs.train import TrainConfig
from pipelines.core.config import resolve

COMMANDS = ["train-sft", "train-dpo"]
LEAST = {"model": "m", "data": "d", "out": "o"}
NEEDED = {"paper": {"basis": "b"}, "recommended": {"anchor": ["a"]}, "rank-1": {}}


def make(command: str, name: str, file: dict[str, Any] | None = None, sets: tuple[str, ...] = (), **flags: Any) -> Any:
    options = {**LEAST, "preset": name, **NEEDED[name], **flags}
    return resolve(BY_NAME[command].config_class(), values=file, flags=options, sets=sets)


def test_the_file_and_the_option_have_the_same_names() -> None:
    assert set(load_presets()) == set(get_args(PresetName)) == set(NEEDED)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((command, name) for command in COMMANDS for name in NEEDED),
        ("train-npo", "recommended"),
        ("train-npo", "rank-1"),
    ],
)
@pytest.mark.parametrize("lora", [{}, {"lora_rank": "8"}])
def test_every_value_is_filled(command: str, name: str, lora: dict[str, Any]) -> None:
    if name == "paper" and lora:
        with pytest.raises(ConfigError, match="--preset paper has no values for training adapters"):
            make(command, name, **lora)
        return
    config = make(command, name, **lora)
    values = load_presets()[name].values(command, adapters=bool(lora))
    assert values
    if name == "rank-1" and lora:
        # Another rank by hand, with the other values.
        assert config.from_preset()["by_hand"] == {"lora_rank": 8}
        return
    assert {field: getattr(config, field) for field in values} == values
    assert config.from_preset() == {"from_preset": values, "by_hand": {}}


def test_rank_one_makes_adapters_of_a_run_that_asks_for_none() -> None:
    config = make("train-dpo", "rank-1")
    assert (config.lora_rank, config.lora_alpha) == (1, 32.0)
    with pytest.raises(ConfigError, match="--lora-alpha needs --lora-rank"):
        make("train-dpo", "rank-1", lora_rank="0")


@pytest.mark.parametrize("lora", [{}, {"lora_rank": "8"}])
def test_a_preset_that_is_not_for_a_command_says_so_and_nothing_else(lora: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        make("train-npo", "paper", basis=None, **lora)
    assert caught.value.problems == [
        "--preset paper has no values for train-npo: leave it out, and give options by hand"
    ]


def test_rates_are_those_of_what_is_trained() -> None:
    rates = {
        (command, rank): make(command, "recommended", **({"lora_rank": rank} if rank else {})).learning_rate
        for command in COMMANDS
        for rank in (0, 8)
    }
    assert all(rates[command, 8] > rates[command, 0] for command in COMMANDS)
    assert make("train-sft", "recommended", lora_rank="0").learning_rate == rates["train-sft", 0]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_given_by_hand_wins_wherever_it_is_given(command: str) -> None:
    config = make(
        command, "paper", {"learning-rate": 3e-5, "epochs": 7}, ("batch_size=9",), refresh_every="auto", epochs="8"
    )
    given = {"learning_rate": 3e-5, "epochs": 8, "batch_size": 9, "refresh_every": "auto"}
    assert {field: getattr(config, field) for field in given} == given
    assert config.from_preset()["by_hand"] == given
    assert not given.keys() & config.from_preset()["from_preset"].keys()
    # A value that is given and is the default wins too.
    default = type(config).model_fields["warmup_steps"].default
    assert make(command, "recommended", warmup_steps=default).warmup_steps == default


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("name", "needed"), [("paper", "--basis"), ("recommended", "--anchor")])
def test_a_preset_says_what_it_needs_and_nothing_else(command: str, name: str, needed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(command, name, basis=None, anchor=[])
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"--preset {name} needs {needed}: ")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", list(NEEDED))
def test_what_a_dry_run_writes_is_the_same_run(command: str, name: str, tmp_path: Path) -> None:
    config: TrainConfig = make(command, name, epochs="0.5")
    path = tmp_path / "resolved.yaml"
    path.write_text(config.to_yaml())
    again = resolve(type(config), file=path)
    assert again == config
    assert again.from_preset() == config.from_preset()


def test_a_preset_is_no_part_of_the_result_and_its_values_are() -> None:
    preset = make("train-sft", "recommended")
    values = load_presets()["recommended"].values("train-sft", adapters=False)
    by_hand = resolve(type(preset), values={**LEAST, **NEEDED["recommended"], **(values or {})})
    assert by_hand.preset is None
    assert by_hand.identity_hash() == preset.identity_hash()
    assert by_hand.from_preset() == {}


def test_an_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match="must be 'paper', 'recommended' or 'rank-1', got 'papers'"):
        resolve(BY_NAME["train-sft"].config_class(), flags={**LEAST, "preset": "papers"})
