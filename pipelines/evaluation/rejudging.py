"""``ogpsa evaluate --rejudge``: another judge on the answers of a finished evaluation, without its model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord, as_input, open_artifact
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import is_main, on_main
from pipelines.core.making import Wanted, make
from pipelines.engine import joining
from pipelines.evaluation.answering.store import (
    GENERATIONS_FILE,
    read_generation_settings,
    read_generations,
    write_generations,
)
from pipelines.evaluation.contract.answer import StoredAnswer, write_answers
from pipelines.evaluation.contract.results import KIND, RESULTS_FILE, EvaluateResult, Results, read_results
from pipelines.evaluation.contract.verdict import (
    Judge,
    Judged,
    StoredVerdict,
    judge_answers,
    read_verdicts,
    write_verdicts,
)
from pipelines.evaluation.request import requested_judge
from pipelines.evaluation.suites.prompts import judged_outcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Stored:
    """An evaluation to be judged again: its results, and the answers and verdicts of its judged suites."""

    results: Results
    answers: list[StoredAnswer]
    verdicts: list[StoredVerdict]
    record: InputRecord


def run(config: EvaluateConfig) -> EvaluateResult:
    """Judge stored answers again; does nothing where that is done already.

    Raises:
        InputError: there are no judged answers, or the judge cannot be used.
        ArtifactError: the evaluation does not verify, or something else lies at ``--out``.
    """
    assert config.rejudge is not None, "the configuration is checked for it"
    assert config.out is not None, "the configuration is checked for it"
    joining.join()
    out, stored, judge = config.out, _read(config.rejudge), requested_judge(config)
    _check(stored, judge)
    _say_left_out(stored)
    inputs = on_main(lambda: [stored.record, *judge.inputs()])

    def write(writer: ArtifactWriter) -> None:
        judged = judge_answers(judge, stored.answers)
        if is_main():
            _write(writer, config, stored, judge, judged)

    made = make(Wanted(out, KIND, config, inputs, overwrite=config.overwrite, keep_partial=True), write)
    return EvaluateResult(made.path, made.manifest, made.up_to_date, read_results(out))


def _write(writer: ArtifactWriter, config: EvaluateConfig, stored: _Stored, judge: Judge, judged: Judged) -> None:
    assert config.rejudge is not None, "the configuration is checked for it"
    outcomes = [
        judged_outcome(
            suite.settings.model_copy(update={"scoring": f"judge {judged.judge}"}),
            suite.suite,
            [answer for answer in stored.answers if answer.suite == suite.suite],
            judged.verdicts,
            resamples=config.bootstrap,
            seed=config.seed,
        )
        for suite in stored.results.suites
        if any(answer.suite == suite.suite for answer in stored.answers)
    ]
    results = stored.results.model_copy(
        update={
            "run": config.name or stored.results.run,
            "suites": tuple(outcome.results for outcome in outcomes),
        }
    )
    (writer.path / RESULTS_FILE).write_text(results.to_json(), encoding="utf-8")
    write_answers(writer.path, (outcome.items for outcome in outcomes))
    write_generations(writer.path, stored.answers, read_generation_settings(config.rejudge))
    write_verdicts(writer.path, [*_others(stored.verdicts, judge), *judged.verdicts])
    for folder in writer.path.iterdir():
        if folder.is_dir():  # what the judge had said when it was interrupted
            shutil.rmtree(folder)
    writer.summary = results.summary()


def plan(config: EvaluateConfig) -> list[tuple[str, str]]:
    """What :func:`run` would do.

    Raises:
        OgpsaError: as for :func:`run`.
    """
    assert config.rejudge is not None, "the configuration is checked for it"
    stored, judge = _read(config.rejudge), requested_judge(config)
    _check(stored, judge)
    num_judged = sum(answer.group in judge.groups and answer.answer is not None for answer in stored.answers)
    return [
        ("answers", f"{num_judged} of {stored.results.run}, from {config.rejudge}"),
        ("judge", judge.describe()),
        ("output", str(config.out)),
    ]


def _read(path: Path) -> _Stored:
    manifest = open_artifact(path, KIND)
    verdicts = read_verdicts(path)
    if not verdicts or GENERATIONS_FILE not in manifest.files:
        raise InputError(
            f"'{path}' has no answers that were judged",
            fix="evaluate the model with a suite that a judge scores:  ogpsa evaluate MODEL --suite safety --out DIR",
        )
    judged = {verdict.suite for verdict in verdicts}
    answers = [answer for answer in read_generations(path) if answer.suite in judged]
    return _Stored(read_results(path), answers, verdicts, as_input("results", path, manifest))


def _check(stored: _Stored, judge: Judge) -> None:
    groups = {answer.group for answer in stored.answers}
    if not groups & judge.groups:
        raise InputError(
            f"the judge '{judge.name}' judges answers to {' and '.join(sorted(judge.groups))} prompts, "
            f"and there are only answers to {' and '.join(sorted(groups))} ones",
            fix="use --judge refusal",
        )


def _say_left_out(stored: _Stored) -> None:
    judged = {answer.suite for answer in stored.answers}
    others = [suite.suite for suite in stored.results.suites if suite.suite not in judged]
    if others:
        logger.info("no judge scores %s: these figures stay in '%s' alone", ", ".join(others), stored.record.path)


def _others(verdicts: Sequence[StoredVerdict], judge: Judge) -> list[StoredVerdict]:
    return [verdict for verdict in verdicts if verdict.judge != judge.name]
