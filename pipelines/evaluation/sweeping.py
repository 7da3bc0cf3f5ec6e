"""Measure mixes of two models one after the other, with suites, prompts and judge opened once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.configs.evaluate import EvaluateConfig
from pipelines.evaluation.answering.asking import Asked, answer_all, ask
from pipelines.evaluation.answering.opening import backend_of
from pipelines.evaluation.blending import Blending
from pipelines.evaluation.contract.answer import StoredAnswer
from pipelines.evaluation.contract.results import Results, SuiteResults, hash_text
from pipelines.evaluation.contract.suite import AnySuite, GeneratingSuite
from pipelines.evaluation.contract.verdict import Judge, Judged, judge_answers
from pipelines.models.reference import ModelSource
from pipelines.tokens.chat_template import chat_template_of
from pipelines.tokens.tokenizer import load_source_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def measure_mixes(
    config: EvaluateConfig,
    finetuned: ModelSource,
    other: ModelSource,
    shares: Sequence[float],
    suites: Sequence[AnySuite],
    judge: Judge | None,
    *,
    device: torch.device,
    folder: Path,
) -> list[Results]:
    """The results of every mix, in the order of the shares.

    Args:
        config: how mixes are measured.
        finetuned: the fine-tuned model.
        other: the model at the other end.
        shares: the shares of the fine-tuned model.
        suites: the suites to measure.
        judge: the judge of answers, where a suite needs one.
        device: the device of this process.
        folder: where answers are kept as they are made, so that an interrupted sweep goes on with what is missing.

    Raises:
        InputError: a model cannot be used, or the two are not alike.
        Preempted: the process was asked to stop; what was answered is stored.
    """
    tokenizer = load_source_tokenizer(
        finetuned, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    blending = Blending(
        finetuned, other, precision=config.precision, device=device, trust_remote_code=config.trust_remote_code
    )
    generating = {index: suite for index, suite in enumerate(suites) if isinstance(suite, GeneratingSuite)}
    asked = {index: ask(suite.items(), tokenizer) for index, suite in generating.items()}
    ends = f"{finetuned.fingerprint()} {other.fingerprint()}"
    answers: list[dict[int, list[StoredAnswer]]] = []
    measured: list[dict[int, list[SuiteResults]]] = []
    for share in shares:
        model = blending.mix(share)
        identity = json.dumps({"ends": ends, "share": share, "precision": config.precision})
        place = folder / f"{share:g}"
        answers.append(_answers(config, model, tokenizer, generating, asked, identity, place, f"share {share:g}"))
        measured.append(
            {
                index: [outcome.results for outcome in suite.run(model, tokenizer)]
                for index, suite in enumerate(suites)
                if not isinstance(suite, GeneratingSuite)
            }
        )
    template_hash = hash_text(chat_template_of(tokenizer))
    # A judge model needs the memory.
    del blending, model
    for index, suite in generating.items():
        parts = [of_share[index] for of_share in answers]
        judged = judge_together(judge, parts) if judge is not None and suite.is_judged else [None] * len(parts)
        for found, part, verdicts in zip(measured, parts, judged, strict=True):
            found[index] = [outcome.results for outcome in suite.score(part, template_hash, verdicts)]
    return [
        Results(
            run=f"share {share:g}",
            model=finetuned.reference,
            model_fingerprint=hash_text(f"{ends} {share!r}"),
            suites=tuple(results for index in range(len(suites)) for results in found[index]),
        )
        for share, found in zip(shares, measured, strict=True)
    ]


def judge_together(judge: Judge, parts: Sequence[Sequence[StoredAnswer]]) -> list[Judged]:
    """The verdicts on several models' answers to the same items, with the judge opened once."""
    together = [answer for part in parts for answer in part]
    verdicts = judge_answers(judge, together).verdicts
    judged, start = [], 0
    for part in parts:
        count = sum(answer.answer is not None and answer.group in judge.groups for answer in part)
        judged.append(Judged(judge.describe(), verdicts[start : start + count]))
        start += count
    return judged


def _answers(
    config: EvaluateConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    generating: Mapping[int, GeneratingSuite],
    asked: Mapping[int, Asked],
    identity: str,
    folder: Path,
    label: str,
) -> dict[int, list[StoredAnswer]]:
    return {
        index: answer_all(
            asked[index],
            tokenizer,
            backend_of(model, tokenizer, asked[index], suite.decoding),
            suite.decoding,
            folder=folder,
            identity=f"{identity} {suite.decoding.describe()}",
            batch_size=config.batch_size,
            label=label,
        )
        for index, suite in generating.items()
    }
