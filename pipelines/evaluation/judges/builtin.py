"""The built-in refusal judge, as suites use judges."""

from __future__ import annotations

from collections.abc import Sequence

from data_registry.core.manifest import InputRecord
from data_registry.formats.prompt_sets import GROUPS
from pipelines.core.progress import Progress
from pipelines.evaluation.contract.answer import StoredAnswer
from pipelines.evaluation.contract.judge import UNSURE, Judgement
from pipelines.evaluation.judges.refusal.judge import JUDGE_VERSION, judge

NAME = "refusal"


class RefusalJudge:
    """Compliance or refusal by what sentences do; needs no model."""

    name = NAME
    groups = frozenset(GROUPS)

    def describe(self) -> str:
        """See ``Judge``."""
        return JUDGE_VERSION

    def inputs(self) -> list[InputRecord]:
        """See ``Judge``."""
        return []

    def fetch(self) -> None:
        """See ``Judge``: it is here."""

    def judge(self, answers: Sequence[StoredAnswer]) -> list[Judgement]:
        """See ``Judge``."""
        judgements = []
        with Progress("judging", total=len(answers), unit="answers") as progress:
            for answer in answers:
                verdict = judge(answer.question, answer.answer or "")
                evidence = [part.sentence for part in verdict.evidence]
                if verdict.doubt is not None:
                    evidence.insert(0, f"({verdict.doubt})")
                outcome = UNSURE if verdict.unsure else verdict.label.value
                judgements.append(
                    Judgement(answer.suite, answer.id, self.name, outcome, verdict.label.value, " | ".join(evidence))
                )
                progress.advance()
        return judgements
