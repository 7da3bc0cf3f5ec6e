"""What a judge is, and what it says of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from data_registry.core.manifest import InputRecord
from pipelines.evaluation.contract.answer import StoredAnswer
from pipelines.evaluation.contract.verdict import Label

UNSURE: Final = "unsure"
ERROR: Final = "judge_error"
OUTCOMES: Final = (*(label.value for label in Label), UNSURE, ERROR)


@dataclass(frozen=True)
class Judgement:
    """What a judge said of one stored answer.

    Attributes:
        suite: of the answer.
        id: of the answer.
        judge: the judge's name.
        outcome: one of ``OUTCOMES``.
        label: the most likely class, also where it is unsure; None for a judge error.
        evidence: sentences that decided, or what a judge model wrote.
    """

    suite: str
    id: str
    judge: str
    outcome: str
    label: str | None
    evidence: str

    @property
    def key(self) -> tuple[str, str]:
        """The answer that it is about."""
        return self.suite, self.id


@dataclass(frozen=True)
class Judged:
    """What a judge said of the answers of an evaluation.

    Attributes:
        judge: its description, for the settings of results.
        judgements: one for each answer that was given and that it could judge.
    """

    judge: str
    judgements: Sequence[Judgement]


class Judge(Protocol):
    """A judge of answers."""

    @property
    def name(self) -> str:
        """For verdicts and tables."""
        ...

    @property
    def groups(self) -> frozenset[str]:
        """The groups of prompts whose answers it can judge."""
        ...

    def describe(self) -> str:
        """For the settings of results: figures of judges that differ here are not comparable."""
        ...

    def inputs(self) -> list[InputRecord]:
        """What it reads."""
        ...

    def fetch(self) -> None:
        """Fetch all that it needs, so that it works without a network."""
        ...

    def judge(self, answers: Sequence[StoredAnswer]) -> list[Judgement]:
        """One judgement for each answer, in order; all are of groups that it can judge, and none is missing."""
        ...
