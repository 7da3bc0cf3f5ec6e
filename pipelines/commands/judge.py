"""The work of ``ogpsa judge``: verdicts on answers made elsewhere, with figures and agreement."""

from __future__ import annotations

from dataclasses import dataclass

from data_registry.core.manifest import InputRecord
from pipelines.configs.judge import JudgeConfig
from pipelines.core.job import on_main
from pipelines.core.making import Made, Wanted, make
from pipelines.engine import joining
from pipelines.evaluation.contract.results import hash_text
from pipelines.evaluation.contract.verdict import Judge
from pipelines.evaluation.judges.registry import JUDGES
from pipelines.judging.making import judge_file, requested_judges
from pipelines.judging.reading import read_answers_file
from pipelines.judging.results import KIND, Judgement, read_judgement


@dataclass(frozen=True)
class JudgeResult(Made):
    """What ``judge`` ends with: where the judgement lies, and the judgement."""

    judgement: Judgement


def run(config: JudgeConfig) -> JudgeResult:
    """Judge the answers of a file; does nothing where that is done already.

    Raises:
        ConfigError: nothing tells which columns are meant or what labels mean, or a judge does not go with the prompts.
        InputError: the file or a judge model cannot be used.
        ArtifactError: something else lies at ``--out``.
    """
    if any(name not in JUDGES for name in config.judge):
        joining.join()
    answers = on_main(lambda: read_answers_file(config))
    judges = requested_judges(config, answers)
    inputs = on_main(lambda: [*answers.inputs, *(record for judge in judges for record in _records(judge))])
    wanted = Wanted(config.out, KIND, config, inputs, overwrite=config.overwrite, keep_partial=True)
    made = make(wanted, lambda writer: judge_file(writer, config, answers, judges))
    return JudgeResult(made.path, made.manifest, made.up_to_date, read_judgement(made.path))


def _records(judge: Judge) -> list[InputRecord]:
    """What a judge reads; the version of one that reads nothing, so that a newer one judges again."""
    told = judge.describe()
    version = InputRecord(role="judge", path=told, kind="judge", fingerprint=hash_text(told))
    return judge.inputs() or [version]


def plan(config: JudgeConfig) -> list[tuple[str, str]]:
    """What :func:`run` would do, without loading weights.

    Raises:
        OgpsaError: as for :func:`run`.
    """
    answers = read_answers_file(config)
    judges = requested_judges(config, answers)
    given = sum(answer.answer is not None for answer in answers.answers)
    groups = sorted({answer.group for answer in answers.answers})
    return [
        ("answers", f"{given} of {len(answers.answers)} rows of {config.source}, prompts {' and '.join(groups)}"),
        ("columns", ", ".join(f"{name} from '{column}'" for name, column in answers.columns.items())),
        ("labels", f"{answers.num_labelled} rows" if answers.num_labelled else "none"),
        *(("judge", judge.describe()) for judge in judges),
        ("output", str(config.out)),
    ]
