"""What is run: methods with their options, the rates that were chosen, and the stages in their order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from data_registry.core.documents import Document, parse, read_text

HERE: Final = Path(__file__).parent
Task = str
"""What is trained: a key of a plan's ``steps``."""


class Method(Document):
    """A method as the plan has it.

    Attributes:
        rates: the learning rates that are tried in SFT.
        dpo_rates: the same in whatever else is trained.
        options: options of the training commands beside the settings.
        dpo: options beside these in DPO; None where the method has no DPO.
        averaged: whether the weights that count are the mean over every tenth step of the second half of training.
    """

    rates: list[float] = Field(min_length=1)
    dpo_rates: list[float] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)
    dpo: dict[str, Any] | None = Field(default_factory=dict)
    averaged: bool = False


class Stage(Document):
    """Runs of the same kind: every method under all references, in all worlds, with all seeds.

    Attributes:
        task: what is trained.
        methods: the names of the methods.
        references: the names of the references.
        worlds: the seeds of the worlds.
        seeds: the seeds of references, data order and adapters.
        rates: ``tried`` for all rates of a method, ``chosen`` for the chosen one, or the rates themselves.
    """

    task: Task
    methods: list[str]
    references: list[str] = Field(default_factory=lambda: ["complete"])
    worlds: list[int] = Field(default_factory=lambda: [0, 1, 2])
    seeds: list[int] = Field(default_factory=lambda: [0])
    rates: Literal["tried", "chosen"] | list[float] = "chosen"


class Plan(Document):
    """The study as its file has it.

    Attributes:
        settings: options of all training.
        dpo: options beside these of all DPO.
        steps: optimizer steps of each task.
        methods: the methods by name.
        stages: what is run, in this order.
        chosen: the rates that were chosen, by task and method.
    """

    settings: dict[str, Any]
    dpo: dict[str, Any] = Field(default_factory=dict)
    steps: dict[Task, int]
    methods: dict[str, Method]
    stages: dict[str, Stage]
    chosen: dict[Task, dict[str, float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_known(self) -> Plan:
        for name, stage in self.stages.items():
            unknown = {stage.task} - self.steps.keys() | set(stage.methods) - self.methods.keys()
            if unknown:
                raise ValueError(f"stage {name}: unknown {', '.join(sorted(unknown))}")
        return self


@dataclass(frozen=True)
class Run:
    """One training run, or several in a chain.

    Attributes:
        task: what is trained.
        method: the name of the method.
        rate: the peak learning rate; of DPO in a chain, where SFT has the one chosen for it.
        references: the name of the references.
        world: the seed of the world.
        seed: the seed of references, data order and adapters.
        steps: optimizer steps, of each part of a chain.
    """

    task: Task
    method: str
    rate: float
    references: str
    world: int
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """A name for files, the same for equal runs."""
        words = (str(value).replace(" ", "_").replace(",", "").replace("%", "pc") for value in asdict(self).values())
        return "-".join(words)


@cache
def read_plan(path: Path = HERE / "plan.yaml") -> Plan:
    """Read the plan."""
    return parse(Plan, read_text(path, "plan"), what="plan", where=str(path))


def stage_runs(plan: Plan, name: str) -> Iterator[Run]:
    """The runs of a stage, seed by seed, world by world and then method by method, so that a part can be used."""
    stage = plan.stages[name]
    for seed, world, references, method in itertools.product(
        stage.seeds, stage.worlds, stage.references, stage.methods
    ):
        for rate in _rates(plan, stage, method):
            yield Run(stage.task, method, rate, references, world, seed, plan.steps[stage.task])


def _rates(plan: Plan, stage: Stage, method: str) -> Sequence[float]:
    if isinstance(stage.rates, list):
        return stage.rates
    if stage.rates == "tried":
        return plan.methods[method].rates if stage.task == "sft" else plan.methods[method].dpo_rates
    return [plan.chosen[stage.task][method]]
