"""The judge's agreement with people, measured by cross-validation and shipped beside its weights."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from data_registry.core.errors import ArtifactError
from pipelines.evaluation.judges.refusal.judge import JUDGE_VERSION

AGREEMENT_FILE = Path(__file__).with_name("agreement.json")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TypeAgreement(_Record):
    """Agreement on one type of XSTest's prompts: items, and the share on which judge and people agree (binary)."""

    prompt_type: str
    num_items: int
    binary: float


class AgreementRow(_Record):
    """Agreement of one judge with people on the answers of one model.

    Attributes:
        judge: the judge that is compared with people.
        answers_of: the model that gave the answers.
        fitted_on: the model whose answers the weights come from; None where nothing was fitted.
        num_items: the number of answers.
        binary: the share of answers on which both say compliance, or both do not.
        low: the lower end of Wilson's 95 % interval of ``binary``.
        high: its upper end.
        three_class: the share of answers to which both give the same of three classes.
        kappa_binary: Cohen's kappa of compliance against the rest.
        kappa_three: Cohen's kappa of three classes.
        recall: for each class, the share of people's labels that the judge gives too.
        unsure: the share of unsure verdicts; None for judges that are never unsure.
        binary_when_sure: ``binary`` among the verdicts that are sure.
        by_type: ``binary`` for each type of prompt.
    """

    judge: str
    answers_of: str
    fitted_on: str | None
    num_items: int
    binary: float
    low: float
    high: float
    three_class: float
    kappa_binary: float
    kappa_three: float
    recall: dict[str, float]
    unsure: float | None = None
    binary_when_sure: float | None = None
    by_type: tuple[TypeAgreement, ...] = ()


class Agreement(_Record):
    """The table that comes with the judge.

    Attributes:
        judge_version: the version of the judge that it was measured with.
        labels: the origin of people's labels.
        rows: one for each judge and model.
    """

    judge_version: str
    labels: str
    rows: tuple[AgreementRow, ...]

    def of(self, judge: str) -> tuple[AgreementRow, ...]:
        """The rows of one judge."""
        return tuple(row for row in self.rows if row.judge == judge)

    def lines(self) -> list[str]:
        """One line for each row, for a console."""
        return [
            f"{row.judge} on {row.answers_of}: {row.binary:.1%} of {row.num_items} "
            f"({row.low:.1%} to {row.high:.1%}), three classes {row.three_class:.1%}"
            + ("" if row.binary_when_sure is None else f", {row.binary_when_sure:.1%} where sure")
            for row in self.rows
        ]


@lru_cache(maxsize=1)
def agreement() -> Agreement:
    """The built-in refusal judge's agreement with people.

    Raises:
        ArtifactError: the file is damaged, or belongs to another version of the judge.
    """
    try:
        table = Agreement.model_validate(json.loads(AGREEMENT_FILE.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise ArtifactError(
            f"the judge's agreement table cannot be read: {error}",
            where=str(AGREEMENT_FILE),
            fix="install ogpsa again",
        ) from error
    if table.judge_version != JUDGE_VERSION:
        raise ArtifactError(f"the agreement table is of judge '{table.judge_version}', not '{JUDGE_VERSION}'")
    return table
