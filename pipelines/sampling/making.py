"""Samples made: prompts answered by all processes, answers written as rows, and the places of answers looked at."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from data_registry.core.errors import InputError
from pipelines.configs.sample import SampleConfig
from pipelines.core.artifact import ArtifactWriter, partial_path
from pipelines.core.job import is_main
from pipelines.evaluation.answering.asking import Asked, answer_all, ask
from pipelines.evaluation.answering.opening import backend_of, open_model
from pipelines.evaluation.answering.vllm_backend import VllmEngine
from pipelines.evaluation.contract.answer import StoredAnswer
from pipelines.evaluation.contract.suite import PromptItem
from pipelines.models.limits import Limits, limits_of_model
from pipelines.models.loading import load_model
from pipelines.models.reference import ModelSource
from pipelines.samples.storage import Sample, write_log_probs, write_samples
from pipelines.samples.tokens import training_tokens
from pipelines.sampling.expectations import log_probs_of_rows, look_at_log_probs
from pipelines.sampling.grading import graded
from pipelines.sampling.inputs import decoding_of
from pipelines.sampling.prompts import Prompts, read_prompts
from pipelines.tokens.fitting import Bounds, rows_that_fit
from pipelines.tokens.tokenizer import load_source_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_ANSWERING: Final = "answering"
_LOOKING: Final = "expectations"


def make_samples(config: SampleConfig, source: ModelSource, device: torch.device, writer: ArtifactWriter) -> None:
    """Fill the artifact. Collective: all processes answer, the first writes.

    Raises:
        InputError: the model cannot be used, or it has no answer to any prompt.
        Preempted: a process was asked to stop; what was done is stored.
    """
    prompts = read_prompts(config.data, config.num_samples, config.seed)
    tokenizer = load_source_tokenizer(
        source, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    model: Any = open_model(
        source,
        tokenizer,
        backend=config.backend,
        precision=config.precision,
        trust_remote_code=config.trust_remote_code,
        device=device,
    )
    asked = ask(_items(prompts, config.answers), tokenizer)
    try:
        answers = _answers(config, source, asked, model, tokenizer)
    finally:
        # Its processes and the GPU's memory are of no use to what follows, in a recipe to the next steps either.
        if isinstance(model, VllmEngine):
            model.close()
    samples = _samples(prompts, answers, config.answers)
    if not samples:
        too_long = sum(answer.answer is None for answer in answers)
        raise InputError(
            f"the model has no answer to any of the {len(prompts.messages)} prompts: {too_long} of {len(answers)} "
            f"answers had no room in its context, and {len(answers) - too_long} are empty",
            where=str(config.data),
            fix="try prompts that fit the model, or look at what it says:  ogpsa chat MODEL",
        )
    num_beyond = 0
    if config.log_probs:
        num_answered = len(samples)
        samples = _within_positions(samples, model, tokenizer)
        num_beyond = num_answered - len(samples)
        if isinstance(model, VllmEngine):
            model = load_model(source, precision=config.precision, trust_remote_code=config.trust_remote_code)
            model.to(device)
        _look(config, source, samples, model, tokenizer, device, writer.path)
    if is_main():
        figures = None
        if config.grade != "none":
            samples, figures = graded(samples, prompts, config.grade, config.answer_after, str(config.data))
        write_samples(writer.path, samples)
        for part in (_ANSWERING, _LOOKING):
            shutil.rmtree(writer.path / part, ignore_errors=True)
        writer.summary = _summary(prompts, answers, samples, num_beyond)
        if figures is not None:
            writer.summary["grades"] = figures


def _items(prompts: Prompts, answers: int) -> list[PromptItem]:
    return [
        PromptItem("samples", f"{row}-{number}", "", tuple(messages))
        for row, messages in zip(prompts.rows, prompts.messages, strict=True)
        for number in range(answers)
    ]


def _answers(
    config: SampleConfig, source: ModelSource, asked: Asked, model: Any, tokenizer: PreTrainedTokenizerBase
) -> list[StoredAnswer]:
    decoding = decoding_of(config)
    return answer_all(
        asked,
        tokenizer,
        backend_of(model, tokenizer, asked, decoding),
        decoding,
        folder=partial_path(config.out, config) / _ANSWERING,
        identity=json.dumps([source.fingerprint(), config.identity_hash()]),
        batch_size=config.batch_size,
        label="answering",
    )


def _samples(prompts: Prompts, answers: Sequence[StoredAnswer], per_prompt: int) -> list[Sample]:
    """The answers that there are, each behind its prompt; empty ones and prompts that were too long are left out."""
    found = []
    for index, answer in enumerate(answers):
        number, sample = divmod(index, per_prompt)
        if answer.answer is None or not answer.answer.strip():
            continue
        messages = [*prompts.messages[number], {"role": "assistant", "content": answer.answer}]
        found.append(Sample(messages, prompts.rows[number], sample, answer.finish, answer.num_tokens))
    return found


def _within_positions(samples: Sequence[Sample], model: Any, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """The samples that the model can read again whole: with its end of turn, an answer may be longer than it was."""
    positions = model.context if isinstance(model, VllmEngine) else limits_of_model(model).positions
    if positions is None:
        return list(samples)
    lengths = [len(ids) for ids, _ in training_tokens(samples, tokenizer)]
    kept = rows_that_fit(lengths, Bounds(positions, drop_too_long=True, limits=Limits(None, positions)), name="samples")
    return list(samples) if kept is None else [samples[index] for index in kept]


def _look(
    config: SampleConfig,
    source: ModelSource,
    samples: Sequence[Sample],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    folder: Path,
) -> None:
    vocabulary = model.get_output_embeddings().weight.shape[0]
    k = min(config.log_probs, vocabulary)
    expectations = log_probs_of_rows(
        training_tokens(samples, tokenizer),
        k,
        vocabulary=vocabulary,
        batch_size=config.batch_size,
        folder=partial_path(config.out, config) / _LOOKING,
        identity=json.dumps([source.fingerprint(), config.precision]),
    )
    expectations.compute(look_at_log_probs(model.eval(), k), device)
    if is_main():
        write_log_probs(folder, expectations.tokens, k, expectations.rows)


def _summary(
    prompts: Prompts, answers: Sequence[StoredAnswer], samples: Sequence[Sample], num_beyond: int
) -> dict[str, Any]:
    too_long = sum(answer.answer is None for answer in answers)
    return {
        "task": "sft",
        "prompts": len(prompts.messages),
        "rows": len(samples),
        "finish": {kind: sum(sample.finish == kind for sample in samples) for kind in ("end", "length")},
        "left_out": {
            "prompt too long": too_long,
            "empty answer": len(answers) - too_long - len(samples) - num_beyond,
            **({"beyond the positions": num_beyond} if num_beyond else {}),
        },
        "tokens": sum(sample.num_tokens for sample in samples),
    }
