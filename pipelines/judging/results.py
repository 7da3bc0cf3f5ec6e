"""What ``ogpsa judge`` finds out: figures of each judge, its agreement with labels, and two judges side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_registry.core.errors import ArtifactError, first_line
from data_registry.core.manifest import open_artifact

KIND: Final = "judgement"
JUDGEMENT_FILE: Final = "judgement.json"
ROWS_FILE: Final = "judged.parquet"
DISAGREEMENTS_FILE: Final = "disagreements.jsonl"
SCHEMA: Final = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Share(_Record):
    """A share of answers with Wilson's 95 % interval.

    Attributes:
        name: what is counted.
        value: the share, from 0 to 1.
        low: the lower end of the interval.
        high: its upper end.
        num_items: the number of answers that it is a share of.
    """

    name: str
    value: float
    low: float
    high: float
    num_items: int = Field(ge=1)


class Cell(_Record):
    """A cell of a confusion table.

    Attributes:
        row: the outcome of the one judge, or the label of people.
        column: the outcome of the other judge.
        count: the number of answers.
    """

    row: str
    column: str
    count: int = Field(ge=1)


class LabelAgreement(_Record):
    """How far a judge agrees with people's labels.

    Attributes:
        num_items: the number of answers that have a label and a verdict.
        accuracy: the share on which both say full compliance, or both do not; the judge's most likely class counts,
            and an answer on which it has none counts as a disagreement.
        kappa: Cohen's kappa of full compliance against the rest; None where chance alone would agree always.
        accuracy_where_sure: ``accuracy`` among the verdicts that are sure; None where there is none.
        three_class: the share on which both give the same of three classes; None where people call nothing a partial
            refusal.
        kappa_three: Cohen's kappa of the three classes; None where ``three_class`` is, or chance would agree always.
        recall: for each class, the share of people's labels that the judge gives too; named after the class.
        confusion: answers by label and by most likely class; only cells with answers.
    """

    num_items: int
    accuracy: Share
    kappa: float | None
    accuracy_where_sure: Share | None
    three_class: Share | None
    kappa_three: float | None
    recall: tuple[Share, ...]
    confusion: tuple[Cell, ...]


class JudgeFigures(_Record):
    """What one judge says of all answers.

    Attributes:
        judge: the judge's name.
        description: the judge in words; figures of judges that differ here are not comparable.
        num_judged: the number of answers that it judged.
        counts: the number of answers with each outcome.
        figures: the shares of outcomes, and harmful compliance and over-refusal where prompts are known to be harmful
            or harmless.
        labels: the agreement with people's labels; None where there are none.
    """

    judge: str
    description: str
    num_judged: int
    counts: dict[str, int]
    figures: tuple[Share, ...]
    labels: LabelAgreement | None


class JudgePair(_Record):
    """Two judges on the same answers.

    Attributes:
        first: the name of the one judge.
        second: the name of the other.
        agreement: the share of answers with the same outcome.
        kappa: Cohen's kappa of the outcomes; None where chance alone would agree always.
        confusion: answers by the outcomes of both; only cells with answers.
    """

    first: str
    second: str
    agreement: Share
    kappa: float | None
    confusion: tuple[Cell, ...]


class Judgement(_Record):
    """All that was found out about the answers of a file.

    Attributes:
        source: the file as it was named.
        num_rows: the number of its rows.
        num_without_answer: the number of rows that have no answer.
        num_labelled: the number of rows with a label.
        columns: the columns that were used, by what they hold.
        judges: the judges in the order in which they were asked for.
        pairs: every two judges that judged the same answers.
    """

    schema_version: int = SCHEMA
    source: str
    num_rows: int
    num_without_answer: int
    num_labelled: int
    columns: dict[str, str]
    judges: tuple[JudgeFigures, ...] = Field(min_length=1)
    pairs: tuple[JudgePair, ...] = ()

    def to_json(self) -> str:
        """The text of ``judgement.json``."""
        return self.model_dump_json(indent=2) + "\n"

    def summary(self) -> dict[str, object]:
        """The main figures, for the manifest."""
        return {
            "rows": self.num_rows,
            "labelled": self.num_labelled,
            "judges": {
                found.judge: {figure.name: round(figure.value, 6) for figure in found.figures}
                | ({"agreement": round(found.labels.accuracy.value, 6)} if found.labels is not None else {})
                for found in self.judges
            },
        }


def read_judgement(path: Path) -> Judgement:
    """The judgement in an artifact of ``ogpsa judge``.

    Raises:
        InputError: there is no artifact.
        ArtifactError: it is of another kind, does not verify, or its figures cannot be read.
    """
    open_artifact(path, KIND)
    file = path / JUDGEMENT_FILE
    try:
        return Judgement.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise ArtifactError(
            f"'{file}' cannot be read: {first_line(error)}", where=str(file), fix="judge the answers again"
        ) from error
