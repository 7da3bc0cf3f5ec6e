"""The one table of commands: each one's line in the overview, its options, and whether it can be a recipe's step.

Help reads the table at every start: nothing here imports a configuration class before it is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.core.config import CommandConfig


@dataclass(frozen=True)
class Command:
    """An entry in the table of commands.

    Attributes:
        name: the name as the user types it.
        summary: the line about the command in the overview.
        panel: the group of the overview that the command stands in.
        options: the module of ``pipelines.configs`` and the name of the configuration class in it.
        is_step: whether the command makes one artifact from others, so that a recipe can have it as a step.
    """

    name: str
    summary: str
    panel: str
    options: tuple[str, str]
    is_step: bool = False

    @property
    def module(self) -> str:
        """The name of its two modules: ``pipelines.commands`` has its work, ``ogpsa_cli.commands`` its screen."""
        return self.name.replace("-", "_")

    def config_class(self) -> type[CommandConfig]:
        """The command's configuration class."""
        module, name = self.options
        found: type[CommandConfig] = getattr(importlib.import_module(f"pipelines.configs.{module}"), name)
        return found

    def takes_processes(self) -> bool:
        """Whether the command's work can be spread over several processes."""
        return "num_procs" in self.config_class().model_fields


_START, _CHAIN, _BATCH, _LOOK = "Start here", "The chain, in order", "The chain as a whole", "Look at what there is"
COMMANDS: tuple[Command, ...] = (
    Command("quickstart", "Run the whole chain on a small embedded model: minutes, no download, no GPU.", _START,
            ("tools", "QuickstartConfig")),
    Command("doctor", "Say what this machine has and what would not work on it.", _START,
            ("tools", "DoctorConfig")),
    Command("import-model", "Turn a GGUF file into a model directory, and check that it answers the same.", _CHAIN,
            ("import_model", "ImportModelConfig"), is_step=True),
    Command("prepare-data", "Turn a data set (file, hub, registry) into what training reads.", _CHAIN,
            ("prepare_data", "PrepareDataConfig"), is_step=True),
    Command("sample", "Let a model answer prompts, and keep its own answers as a data set.", _CHAIN,
            ("sample", "SampleConfig"), is_step=True),
    Command("build-basis", "Estimate the directions that carry general ability.", _CHAIN,
            ("build_basis", "BuildBasisConfig"), is_step=True),
    Command("build-mask", "Choose the single weights that training may move.", _CHAIN,
            ("build_mask", "BuildMaskConfig"), is_step=True),
    Command("score-tokens", "Say how much each token of answers counts in training.", _CHAIN,
            ("score_tokens", "ScoreTokensConfig"), is_step=True),
    Command("train-sft", "Fine-tune on safety answers while general ability is kept.", _CHAIN,
            ("train", "TrainSftConfig"), is_step=True),
    Command("train-dpo", "Train on preference pairs while general ability is kept.", _CHAIN,
            ("train", "TrainDpoConfig"), is_step=True),
    Command("train-npo", "Forget the rejected answers of preference pairs.", _CHAIN,
            ("train_npo", "TrainNpoConfig"), is_step=True),
    Command("evaluate", "Measure safety and general ability, with intervals.", _CHAIN,
            ("evaluate", "EvaluateConfig"), is_step=True),
    Command("judge", "Judge answers made elsewhere: verdicts, figures, agreement with labels.", _CHAIN,
            ("judge", "JudgeConfig"), is_step=True),
    Command("report", "Put results side by side: table, gain, charts, one HTML page.", _CHAIN,
            ("report", "ReportConfig"), is_step=True),
    Command("run", "Run a recipe: a chain of these commands in one YAML file.", _BATCH,
            ("run", "RunConfig")),
    Command("slurm", "Write a recipe as Slurm jobs that wait for each other, and submit them.", _BATCH,
            ("run", "SlurmConfig")),
    Command("merge", "Repair a fine-tuned model by merging it with a safe one, layer by layer.", _CHAIN,
            ("merge", "MergeConfig"), is_step=True),
    Command("inspect", "Show what an artifact is, what it was made from, whether it is intact.", _LOOK,
            ("tools", "InspectConfig")),
    Command("clean", "List and remove what interrupted and superseded runs left behind.", _LOOK,
            ("tools", "CleanConfig")),
    Command("chat", "Talk to a model, or to two side by side.", _LOOK,
            ("chat", "ChatConfig")),
    Command("testbed", "Write the small embedded model to a directory, or retrain it.", _LOOK,
            ("tools", "TestbedConfig"), is_step=True),
)  # fmt: skip
BY_NAME: Mapping[str, Command] = {command.name: command for command in COMMANDS}
STEPS: tuple[str, ...] = tuple(command.name for command in COMMANDS if command.is_step)
