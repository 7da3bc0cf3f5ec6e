"""What is run: methods with their options, and the stages in their order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from data_registry.core.documents import Document, parse, read_text

HERE: Final = Path(__file__).parent
Task = Literal["sft", "dpo", "sft-dpo"]


class Method(Document):
    """A method as the plan has it.

    Attributes:
        rate: the peak learning rate.
        options: options of the training commands beside the settings.
        dpo: options beside these in DPO; None where the method has no DPO.
        steps: the steps of its SFT, where they are not those of the plan.
        looks: the steps at which it is measured then.
    """

    rate: float
    options: dict[str, Any] = Field(default_factory=dict)
    dpo: dict[str, Any] | None = Field(default_factory=dict)
    steps: int | None = None
    looks: list[int] | None = None


class Stage(Document):
    """Runs of one task: every method with every seed."""

    task: Task
    methods: list[str]
    seeds: list[int] = Field(default_factory=lambda: [0])


class Measured(Document):
    """What a model is measured on.

    Attributes:
        suites: the suites.
        items: items of each group of a suite.
        rows: rows of each general data set; ``items`` is the most that is taken of them.
    """

    suites: list[str]
    items: int
    rows: int


class Plan(Document):
    """The study as its file has it; the comments there say what the fields are."""

    model: str
    rows: int
    own: int
    lookalikes: int
    reference_samples: int
    settings: dict[str, Any]
    dpo: dict[str, Any]
    steps: dict[Task, int]
    looks: list[int]
    alphas: list[float]
    validation: Measured
    test: Measured
    ends: list[Task]
    max_new_tokens: int
    eval_batch_size: int
    target: float
    methods: dict[str, Method]
    stages: dict[str, Stage]


@dataclass(frozen=True)
class Run:
    """One training run; two in a chain for ``sft-dpo``."""

    task: Task
    method: str
    rate: float
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """A name for folders, the same for equal runs."""
        return "-".join(str(value).replace(" ", "_").replace(",", "") for value in asdict(self).values())


@cache
def read_plan(path: Path = HERE / "plan.yaml") -> Plan:
    """Read the plan."""
    return parse(Plan, read_text(path, "plan"), what="plan", where=str(path))


def stage_runs(plan: Plan, name: str) -> Iterator[Run]:
    """The runs of a stage."""
    stage = plan.stages[name]
    for seed, method in itertools.product(stage.seeds, stage.methods):
        steps = plan.methods[method].steps if stage.task == "sft" else None
        yield Run(stage.task, method, plan.methods[method].rate, seed, steps or plan.steps[stage.task])
