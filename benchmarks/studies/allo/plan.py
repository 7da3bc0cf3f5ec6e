"""What is run: as in the study of the trade-off, with tasks that are chains of training commands from a named start."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from benchmarks.studies.tradeoff.plan import Plan
from data_registry.core.documents import Document, parse, read_text

HERE: Final = Path(__file__).parent
Start = Literal["base", "refusals", "early"]
Trains = Literal["sft", "dpo", "npo"]


class Phase(Document):
    """A part of a task: one training command.

    Attributes:
        train: which command.
        share: its share of the task's steps.
        rate: its learning rate, where it is not the last phase, which has that of the run.
        options: its options beside those of the settings and the method.
    """

    train: Trains
    share: float = 1.0
    rate: float | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class Chain(Document):
    """What a task does.

    Attributes:
        start: the model that it starts from: the testbed's, that after some steps of refusals, or one whose
            pretraining was stopped early, which is trained on its own right and wrong answers.
        phases: the training commands, one after the other.
    """

    start: Start
    phases: list[Phase] = Field(min_length=1)

    @model_validator(mode="after")
    def _all_but_the_last_have_rates(self) -> Chain:
        if [phase.rate is None for phase in self.phases] != [False] * (len(self.phases) - 1) + [True]:
            raise ValueError("all phases but the last need a rate, which the last has from the run")
        return self


class MaskPlan(Plan):
    """The study as its file has it.

    Attributes:
        tasks: what each task does.
        refusals: options of the training that gives the start ``refusals``.
        warm_up: options of the run whose change masks are chosen by, for each command.
    """

    tasks: dict[str, Chain]
    refusals: dict[str, Any]
    warm_up: dict[Trains, dict[str, Any]]

    @model_validator(mode="after")
    def _tasks_have_steps(self) -> MaskPlan:
        if self.tasks.keys() != self.steps.keys():
            raise ValueError("tasks and steps must name the same")
        return self


@cache
def read_plan(path: Path = HERE / "plan.yaml") -> MaskPlan:
    """Read the plan."""
    return parse(MaskPlan, read_text(path, "plan"), what="plan", where=str(path))
