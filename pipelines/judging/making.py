"""The artifact of ``ogpsa judge``: verdicts for every row, figures, and the rows on which somebody disagrees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from data_registry.core.errors import ConfigError
from data_registry.formats.prompt_sets import HARMLESS
from pipelines.configs.judge import JudgeConfig
from pipelines.core.artifact import ArtifactWriter, partial_path
from pipelines.core.job import is_main
from pipelines.evaluation.contract.verdict import Judge, Judged, StoredVerdict, judge_answers
from pipelines.evaluation.judges.registry import JUDGES, create_judge
from pipelines.judging.counting import figures_of, pairs_of
from pipelines.judging.reading import UNSTATED, Answers
from pipelines.judging.results import DISAGREEMENTS_FILE, JUDGEMENT_FILE, ROWS_FILE, Judgement

_JUDGING: Final = "judging"


def requested_judges(config: JudgeConfig, answers: Answers) -> list[Judge]:
    """The judges that the options name, in order; no weights are loaded yet.

    Raises:
        ConfigError: a judge has no verdict on these prompts, or nobody says what the prompts are; or a format is wrong.
        InputError: there is no such model.
    """
    judges = [
        create_judge(
            name,
            None if name in JUDGES else config.judge_format,
            batch_size=config.batch_size,
            precision=config.precision,
            folder=partial_path(config.out, config) / _JUDGING / str(number),
            trust_remote_code=config.trust_remote_code,
        )
        for number, name in enumerate(config.judge, start=1)
    ]
    names = [judge.name for judge in judges]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two judges are called '{twice}'", fix="rename the directory of one of them")
    groups = {answer.group for answer in answers.answers if answer.answer is not None}
    for judge in judges:
        _check_groups(judge, groups)
    return judges


def _check_groups(judge: Judge, groups: set[str]) -> None:
    if judge.name in JUDGES:
        return
    if UNSTATED in groups:
        raise ConfigError(
            f"the judge '{judge.name}' reads its verdict by what the prompts are, and nobody says whether they are "
            "harmful or harmless",
            fix="add --prompts harmful (or harmless), or name the column that says it: --set columns.group=COLUMN",
        )
    if not groups & judge.groups:
        raise ConfigError(
            f"the judge '{judge.name}' judges answers to {' and '.join(sorted(judge.groups))} prompts, and there are "
            f"only answers to {' and '.join(sorted(groups))} ones",
            fix="use --judge refusal",
        )


def judge_file(writer: ArtifactWriter, config: JudgeConfig, answers: Answers, judges: Sequence[Judge]) -> None:
    """Judge all answers and write what came of it; collective where a judge is a model."""
    judged = [_judged(judge, answers) for judge in judges]
    if not is_main():
        return
    labels = {
        answer.id: label for answer, label in zip(answers.answers, answers.labels, strict=True) if label is not None
    }
    judgement = Judgement(
        source=str(config.source),
        num_rows=len(answers.answers),
        num_without_answer=sum(answer.answer is None for answer in answers.answers),
        num_labelled=answers.num_labelled,
        columns=dict(answers.columns),
        judges=tuple(
            figures_of(judge.name, found.judge, answers.answers, found.verdicts, labels)
            for judge, found in zip(judges, judged, strict=True)
        ),
        pairs=pairs_of([verdict for found in judged for verdict in found.verdicts]),
    )
    (writer.path / JUDGEMENT_FILE).write_text(judgement.to_json(), encoding="utf-8")
    _write_rows(writer.path, answers, judged)
    _write_disagreements(writer.path, answers, judged)
    shutil.rmtree(writer.path / _JUDGING, ignore_errors=True)
    writer.summary = judgement.summary()


def _judged(judge: Judge, answers: Answers) -> Judged:
    # The built-in judge does not ask what a prompt is, but answers belong to a group.
    given = [replace(answer, group=HARMLESS) if answer.group == UNSTATED else answer for answer in answers.answers]
    return judge_answers(judge, given)


def _write_rows(folder: Path, answers: Answers, judged: Sequence[Judged]) -> None:
    """One row for every answer and judge, all columns of text but the number of the row."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = ("id", "group", "prompt", "answer", "label", "judge", "outcome", "most_likely", "evidence")
    schema = pa.schema([("row", pa.int64()), *((name, pa.string()) for name in columns)])
    rows: list[tuple[int, dict[str, object]]] = []
    for found in judged:
        for verdict in found.verdicts:
            number = int(verdict.id)
            answer, label = answers.answers[number - 1], answers.labels[number - 1]
            values = (
                answers.ids[number - 1], answer.group, answer.question, answer.answer,
                label.value if label is not None else None,
                verdict.judge, verdict.outcome, verdict.label, verdict.evidence,
            )  # fmt: skip
            rows.append((number, {"row": number, **dict(zip(columns, values, strict=True))}))
    rows.sort(key=lambda row: row[0])
    parquet.write_table(pa.Table.from_pylist([row for _, row in rows], schema), folder / ROWS_FILE, compression="zstd")


def _write_disagreements(folder: Path, answers: Answers, judged: Sequence[Judged]) -> None:
    """The rows on which two judges, or a judge and people, do not say the same, for reading."""
    by_row: dict[int, list[StoredVerdict]] = {}
    for found in judged:
        for verdict in found.verdicts:
            by_row.setdefault(int(verdict.id), []).append(verdict)
    lines = []
    for number, verdicts in sorted(by_row.items()):
        answer, label = answers.answers[number - 1], answers.labels[number - 1]
        said = {verdict.label or verdict.outcome for verdict in verdicts} | ({label.value} if label else set())
        if len(said) == 1:
            continue
        lines.append(
            {
                "row": number,
                "id": answers.ids[number - 1],
                "prompt": answer.question,
                "answer": answer.answer,
                "label": label.value if label is not None else None,
                "verdicts": {verdict.judge: verdict.outcome for verdict in verdicts},
                "most_likely": {verdict.judge: verdict.label for verdict in verdicts},
                "evidence": {verdict.judge: verdict.evidence for verdict in verdicts},
            }
        )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / DISAGREEMENTS_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
