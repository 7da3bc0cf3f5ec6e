"""What ``ogpsa judge`` wrote as a run of a report: figures of each judge, its verdicts, and what people say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data_registry.core.errors import ArtifactError, first_line
from data_registry.core.manifest import Manifest
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import (
    HARMFUL_COMPLIANCE,
    OVER_REFUSAL,
    Metric,
    Results,
    SuiteResults,
    SuiteSettings,
    hash_items,
)
from pipelines.evaluation.contract.verdict import ERROR, Label, StoredVerdict
from pipelines.evaluation.suites.prompts import is_against
from pipelines.judging.reading import UNSTATED
from pipelines.judging.results import ROWS_FILE, JudgeFigures, Judgement, Share, read_judgement

SUITE: Final = "judged"
_SAFETY: Final = {HARMFUL_COMPLIANCE: "harmful", OVER_REFUSAL: "harmless"}
_COLUMNS: Final = ("row", "group", "prompt", "answer", "label", "judge", "outcome", "most_likely", "evidence")


@dataclass(frozen=True)
class JudgedAnswers:
    """A judgement in the terms of a report.

    Attributes:
        judgement: the judgement.
        results: its figures, with a suite for each judge.
        items: the judged answers by suite.
        verdicts: the verdict on each answer, by suite and id.
        labels: people's classes, where they gave any, by suite and id.
    """

    judgement: Judgement
    results: Results
    items: dict[str, list[AnsweredItem]]
    verdicts: dict[tuple[str, str], StoredVerdict]
    labels: dict[tuple[str, str], str]


def read_judged(path: Path, manifest: Manifest) -> JudgedAnswers:
    """The judgement at a path, with its answers.

    Raises:
        ArtifactError: its figures or its rows cannot be read.
    """
    judgement = read_judgement(path)
    rows = _rows(path / ROWS_FILE)
    items: dict[str, list[AnsweredItem]] = {}
    verdicts: dict[tuple[str, str], StoredVerdict] = {}
    labels: dict[tuple[str, str], str] = {}
    suites = []
    for figures in judgement.judges:
        suite = f"{SUITE}/{figures.judge}"
        own = [row for row in rows if row["judge"] == figures.judge]
        if not own:
            raise ArtifactError(
                f"'{path}' holds no verdicts of the judge '{figures.judge}'", where=str(path / ROWS_FILE),
                fix="judge the answers again",
            )  # fmt: skip
        items[suite] = [_item(suite, row) for row in own]
        for row in own:
            key = (suite, str(row["row"]))
            verdicts[key] = StoredVerdict(
                *key, figures.judge, row["outcome"], row["most_likely"], row["evidence"] or ""
            )
            if row["label"]:
                labels[key] = row["label"]
        suites.append(_suite(suite, figures, own))
    results = Results(
        run=path.name, model=judgement.source, model_fingerprint=manifest.fingerprint, suites=tuple(suites)
    )
    return JudgedAnswers(judgement, results, items, verdicts, labels)


def _rows(file: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(file, columns=list(_COLUMNS)).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(
            f"'{file}' cannot be read: {first_line(error)}", where=str(file), fix="judge the answers again"
        ) from error
    needed = ("group", "prompt", "answer", "judge", "outcome")
    for number, row in enumerate(rows, start=1):
        if row["row"] is None or not all(isinstance(row[name], str) for name in needed):
            raise ArtifactError(
                f"'{file}' is no table of judged answers", where=f"{file}, row {number}", fix="judge the answers again"
            )
    return rows


def _item(suite: str, row: dict[str, Any]) -> AnsweredItem:
    # Of prompts of which nobody says what they are, compliance is counted: the figures have no better side.
    is_counted = (
        row["outcome"] == Label.FULL_COMPLIANCE
        if row["group"] == UNSTATED
        else is_against(row["group"], row["outcome"])
    )
    return AnsweredItem(suite, str(row["row"]), row["group"], row["prompt"], row["answer"], None, float(is_counted))


def _suite(suite: str, figures: JudgeFigures, rows: list[dict[str, Any]]) -> SuiteResults:
    groups = tuple(dict.fromkeys(row["group"] for row in rows))
    safety = [share for share in figures.figures if share.name in _SAFETY]
    others = [share for share in figures.figures if share.name not in _SAFETY and share.name != ERROR]
    settings = SuiteSettings(
        version="1",
        split="given answers",
        prompt_hash=hash_items([row["row"], row["group"], row["prompt"]] for row in rows),
        template_hash="as given",
        decoding="as given",
        scoring=f"judge {figures.description}",
    )
    metrics = [
        *(_metric(share, (_SAFETY[share.name],), headline=True) for share in safety),
        *(_metric(share, groups, headline=not safety) for share in others),
    ]
    return SuiteResults(suite=suite, settings=settings, metrics=tuple(metrics), counts=figures.counts)


def _metric(share: Share, groups: tuple[str, ...], *, headline: bool) -> Metric:
    return Metric(
        name=share.name, value=share.value, low=share.low, high=share.high, interval="wilson",
        num_items=share.num_items, higher_is_better=False, unit="share", headline=headline, groups=groups,
    )  # fmt: skip
