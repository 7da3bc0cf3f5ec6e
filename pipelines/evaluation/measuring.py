"""Measure one model on suites: answers by all processes, scores by the first, verdicts without the model."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core.errors import InputError
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import is_main
from pipelines.evaluation.answering.asking import answer_all, ask
from pipelines.evaluation.answering.opening import backend_of, open_model
from pipelines.evaluation.answering.store import write_generations
from pipelines.evaluation.answering.vllm_backend import VllmEngine
from pipelines.evaluation.contract.answer import StoredAnswer, write_answers
from pipelines.evaluation.contract.results import RESULTS_FILE, Results, hash_text
from pipelines.evaluation.contract.suite import AnySuite, GeneratingSuite, SuiteOutcome
from pipelines.evaluation.contract.verdict import Judge, StoredVerdict, judge_answers, write_verdicts
from pipelines.evaluation.judges.registry import BUILT_IN, JUDGES, named_judge
from pipelines.evaluation.request import ANSWERING, JUDGING, work_folder
from pipelines.models.reference import ModelSource
from pipelines.tokens.chat_template import chat_template_of
from pipelines.tokens.tokenizer import load_source_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass
class Measurement:
    """What is known of a model so far.

    Attributes:
        outcomes: the outcomes of suites, by the suite's place in the command.
        answers: the answers of suites that ask, by the suite's place in the command.
        verdicts: the verdicts of every judge, on all answers.
        template_hash: the hash of the chat template that wrote the prompts.
    """

    outcomes: dict[int, list[SuiteOutcome]] = field(default_factory=dict)
    answers: dict[int, list[StoredAnswer]] = field(default_factory=dict)
    verdicts: list[StoredVerdict] = field(default_factory=list)
    template_hash: str = ""


def measure(
    config: EvaluateConfig,
    source: ModelSource,
    suites: Sequence[AnySuite],
    judge: Judge | None,
    device: torch.device,
    folder: Path | None,
) -> Measurement:
    """Let all processes answer, and the first score given answers; then, without the model, collect verdicts.

    Args:
        config: the options of the command.
        source: the model.
        suites: the suites to measure.
        judge: the judge of answers, where a suite needs one.
        device: the device of this process.
        folder: the unfinished artifact, into which answers go before anybody judges them; None on other processes.

    Raises:
        InputError: the model cannot be used, or no prompt of a suite fits into its context.
        NumericsError: the model gives a loss that is not finite.
        Preempted: a process was asked to stop; what was answered is stored.
    """
    measurement = Measurement()
    generating = {index: suite for index, suite in enumerate(suites) if isinstance(suite, GeneratingSuite)}
    if is_main() or generating:
        tokenizer = _tokenizer(config, source)
        model = open_model(
            source,
            tokenizer,
            backend=config.backend,
            precision=config.precision,
            trust_remote_code=config.trust_remote_code,
            device=device,
        )
        for index, suite in generating.items():
            _generate(config, source, suite, index, model, tokenizer, measurement)
        if folder is not None and generating:
            _store(folder, config, source, generating, measurement)
        for index, other in enumerate(suites):
            if is_main() and not isinstance(other, GeneratingSuite):
                assert not isinstance(model, VllmEngine), "refused before"
                measurement.outcomes[index] = other.run(model, tokenizer)
        # A judge model needs the memory.
        if isinstance(model, VllmEngine):
            model.close()
        del model
    for index, suite in generating.items():
        answers, judged = measurement.answers[index], None
        if judge is not None and suite.is_judged:
            judged = judge_answers(judge, answers)
            if judge.name not in JUDGES:
                # It costs milliseconds, and shows how far the two agree.
                measurement.verdicts += judge_answers(named_judge(BUILT_IN), answers).verdicts
            measurement.verdicts += judged.verdicts
        if is_main():
            measurement.outcomes[index] = suite.score(answers, measurement.template_hash, judged)
    return measurement


def write_evaluation(
    writer: ArtifactWriter,
    config: EvaluateConfig,
    source: ModelSource,
    suites: Sequence[AnySuite],
    measurement: Measurement,
) -> None:
    """Write figures, answers and verdicts as an artifact; rank zero's work."""
    outcomes = [outcome for index in range(len(suites)) for outcome in measurement.outcomes[index]]
    results = Results(
        run=config.name or source.name,
        model=str(config.model),
        model_fingerprint=source.fingerprint(),
        suites=tuple(outcome.results for outcome in outcomes),
    )
    (writer.path / RESULTS_FILE).write_text(results.to_json(), encoding="utf-8")
    write_answers(writer.path, (outcome.items for outcome in outcomes))
    if measurement.verdicts:
        write_verdicts(writer.path, measurement.verdicts)
    for part in (ANSWERING, JUDGING):
        shutil.rmtree(writer.path / part, ignore_errors=True)
    writer.summary = results.summary()


def _store(
    folder: Path,
    config: EvaluateConfig,
    source: ModelSource,
    generating: Mapping[int, GeneratingSuite],
    measurement: Measurement,
) -> None:
    """All answers in one file, with how they were made, before anybody judges them."""
    answers = [answer for part in measurement.answers.values() for answer in part]
    settings = {
        name: _identity(config, source, suite, measurement.template_hash)
        for index, suite in generating.items()
        for name in dict.fromkeys(answer.suite for answer in measurement.answers[index])
    }
    write_generations(folder, answers, settings)


def _identity(
    config: EvaluateConfig, source: ModelSource, suite: GeneratingSuite, template_hash: str
) -> dict[str, str]:
    """All that answers depend on beside their prompts."""
    return {
        "model": source.fingerprint(),
        "template_hash": template_hash,
        "decoding": suite.decoding.describe(),
        "precision": config.precision,
        "backend": config.backend,
    }


def _generate(
    config: EvaluateConfig,
    source: ModelSource,
    suite: GeneratingSuite,
    index: int,
    model: PreTrainedModel | VllmEngine,
    tokenizer: PreTrainedTokenizerBase,
    measurement: Measurement,
) -> None:
    asked = ask(suite.items(), tokenizer)
    measurement.template_hash = hash_text(chat_template_of(tokenizer))
    backend = backend_of(model, tokenizer, asked, suite.decoding)
    measurement.answers[index] = answer_all(
        asked,
        tokenizer,
        backend,
        suite.decoding,
        folder=work_folder(config, ANSWERING),
        identity=json.dumps(_identity(config, source, suite, measurement.template_hash)),
        batch_size=config.batch_size,
        label="answering",
    )
    _check_answered(measurement.answers[index], backend.context)


def _check_answered(answers: Sequence[StoredAnswer], context: int | None) -> None:
    """Say how many prompts were not answered, and refuse a set of which none was."""
    too_long = sum(answer.answer is None for answer in answers)
    if not too_long:
        return
    for name in dict.fromkeys(answer.suite for answer in answers):
        if all(answer.answer is None for answer in answers if answer.suite == name):
            raise InputError(f"no prompt of '{name}' fits into the model's context of {context} tokens")
    logger.warning(
        "%d of %d prompts fill the model's context of %s tokens and were not answered; they are in no figure",
        too_long,
        len(answers),
        context,
    )


def _tokenizer(config: EvaluateConfig, source: ModelSource) -> PreTrainedTokenizerBase:
    return load_source_tokenizer(source, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code)
