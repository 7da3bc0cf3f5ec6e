"""Presets: values for options that are not given, from one YAML file in the package.

Where a value came from is told by comparison: an option that has the preset's value has it from there, and one with
another value was given otherwise. So a configuration that a dry run wrote tells the same as the command that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

PresetName = Literal["paper", "recommended", "rank-1"]
_FILE: Final = Path(__file__).with_name("presets.yaml")


class PresetValues(BaseModel):
    """The values of a preset for one command, by field name.

    Attributes:
        all: values for every run.
        full: values where all parameters are trained; None where the preset is not for that.
        lora: values where adapters are trained.
    """

    model_config = ConfigDict(extra="forbid")
    all: dict[str, Any] = Field(default_factory=dict)
    full: dict[str, Any] | None = None
    lora: dict[str, Any] | None = None

    @field_validator("all", "full", "lora", mode="before")
    @classmethod
    def _fields(cls, values: Any) -> Any:
        return {key.replace("-", "_"): value for key, value in values.items()} if isinstance(values, dict) else values


class Preset(BaseModel):
    """A preset as the file has it.

    Attributes:
        summary: what it is, in a few words.
        needs: fields that it is nothing without, each with what to give.
    """

    model_config = ConfigDict(extra="forbid")
    summary: str
    needs: dict[str, str]
    train_sft: PresetValues = Field(alias="train-sft")
    train_dpo: PresetValues = Field(alias="train-dpo")
    train_npo: PresetValues = Field(default_factory=PresetValues, alias="train-npo")

    def values(self, command: str, *, adapters: bool) -> dict[str, Any] | None:
        """The values for a command by field name; None where the preset is not for what it trains."""
        found: PresetValues = getattr(self, command.replace("-", "_"))
        own = found.lora if adapters else found.full
        return None if own is None else {**found.all, **own}


@cache
def load_presets() -> Mapping[str, Preset]:
    """All presets by name."""
    from data_registry.core.yaml_text import parse_yaml

    values = parse_yaml(_FILE.read_text(encoding="utf-8"), where=str(_FILE))
    return {name: Preset.model_validate(preset) for name, preset in values.items()}


def filled(options: Any, command: str) -> Any:
    """The options of a command with a preset's values for those that are not there.

    They are unchanged without a preset, and where it lacks what it needs: that is then the one thing to be told.
    """
    if not isinstance(options, Mapping) or not isinstance(options.get("preset"), str):
        return options
    preset = load_presets().get(options["preset"])
    if preset is None or any(not options.get(field) for field in preset.needs):
        return options
    values = preset.values(command, adapters=trains_adapters(options))
    return options if values is None else {**values, **options}


def trains_adapters(options: Mapping[str, Any]) -> bool:
    """Whether options ask for fresh adapters; what is no number is refused elsewhere."""
    return str(options.get("lora_rank") or 0).strip() != "0"


def preset_problems(name: str, command: str, options: Mapping[str, Any]) -> list[str]:
    """What a preset lacks among the options of a command."""
    preset = load_presets()[name]
    if not any(preset.values(command, adapters=kind) for kind in (True, False)):
        return [f"--preset {name} has no values for {command}: leave it out, and give options by hand"]
    problems = [
        f"--preset {name} needs --{field.replace('_', '-')}: {what}"
        for field, what in preset.needs.items()
        if not options.get(field)
    ]
    adapters = trains_adapters(options)
    if preset.values(command, adapters=adapters) is None:
        kind = "adapters" if adapters else "all parameters"
        problems.append(f"--preset {name} has no values for training {kind}: leave it out, and give options by hand")
    return problems


def provenance(name: str, command: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that have a preset's value, and those that were given another: values by field name."""
    values = load_presets()[name].values(command, adapters=trains_adapters(options)) or {}
    same = {field: options[field] for field, value in values.items() if options[field] == value}
    return same, {field: options[field] for field in values if field not in same}
