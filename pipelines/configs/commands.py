"""The commands that make an artifact, with their configuration classes: what a recipe's steps may be."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from pipelines.core.config import CommandConfig

_CLASSES: Mapping[str, tuple[str, str]] = {
    "testbed": ("tools", "TestbedConfig"),
    "prepare-data": ("prepare_data", "PrepareDataConfig"),
    "build-basis": ("build_basis", "BuildBasisConfig"),
    "train-sft": ("train", "TrainSftConfig"),
    "train-dpo": ("train", "TrainDpoConfig"),
    "evaluate": ("evaluate", "EvaluateConfig"),
    "report": ("report", "ReportConfig"),
    "merge": ("merge", "MergeConfig"),
}
COMMANDS = tuple(_CLASSES)


def config_class(command: str) -> type[CommandConfig]:
    """The configuration class of one of :data:`COMMANDS`."""
    module, name = _CLASSES[command]
    found: type[CommandConfig] = getattr(importlib.import_module(f"pipelines.configs.{module}"), name)
    return found


def takes_processes(command: str) -> bool:
    """Whether a command's work can be spread over several processes."""
    return "num_procs" in config_class(command).model_fields
