"""Suite ``reference-loss``: the mean token loss on the answers of any prepared SFT data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data_registry.core.manifest import InputRecord
from pipelines.core.progress import Progress
from pipelines.evaluation.answering.token_ids import check_token_ids
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import (
    Metric,
    SuiteResults,
    SuiteSettings,
    hash_items,
    hash_text,
    hash_tokenizer,
)
from pipelines.evaluation.contract.suite import SuiteOutcome, SuiteRequest
from pipelines.evaluation.statistics.figures import figure
from pipelines.evaluation.statistics.intervals import ratio_interval
from pipelines.evaluation.suites.prepared_data import PreparedData, data_inputs, open_prepared
from pipelines.evaluation.suites.sample_losses import SampleLoss, mean_token_loss, sample_losses, scored_length
from pipelines.tokens.chat_template import chat_template_of
from pipelines.tokens.conversations import encode_dataset

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "reference-loss"
VERSION = "1"


class ReferenceLossSuite:
    """The losses on the data sets of a request; each has its own figures."""

    def __init__(self, request: SuiteRequest) -> None:
        self._request = request
        self._data = open_prepared(request, "sft")

    def inputs(self) -> list[InputRecord]:
        """The data sets."""
        return data_inputs(self._data)

    def plan(self) -> list[tuple[str, str]]:
        """Samples of each data set."""
        return [(f"{NAME}/{data.name}", f"{len(data.rows)} samples") for data in self._data]

    def run(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[SuiteOutcome]:
        """Measure the loss on every data set.

        Raises:
            InputError: the chat template is missing or refuses a row, or a row has no token to score.
            NumericsError: a loss is not finite.
        """
        return [self._measure(data, model, tokenizer) for data in self._data]

    def _measure(self, data: PreparedData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteOutcome:
        max_length = scored_length(model, self._request.max_length)
        encoded = encode_dataset(data.rows, tokenizer, max_length, name=data.name)
        samples = [(row["input_ids"], row["labels"]) for row in encoded]
        check_token_ids((ids for ids, _ in samples), model, tokenizer.name_or_path)
        with Progress(f"loss on {data.name}", total=len(samples), unit="samples") as progress:
            losses = sample_losses(model, samples, batch_size=self._request.batch_size, progress=progress.advance)
        cut = max(len(ids) for ids, _ in samples) >= max_length
        results = SuiteResults(
            suite=f"{NAME}/{data.name}",
            settings=SuiteSettings(
                version=VERSION,
                split=data.split,
                prompt_hash=hash_items(row["messages"] for row in data.rows),
                template_hash=hash_text(chat_template_of(tokenizer)),
                decoding="none",
                scoring="negative log-likelihood of the answer's tokens",
                max_length=max_length if cut else None,
                tokenizer_hash=hash_tokenizer(tokenizer),
            ),
            metrics=(_metric(data.name, losses, self._request.resamples, self._request.seed),),
        )
        items = [
            _answered(results.suite, data.name, number, row["messages"], loss)
            for number, row, loss in zip(data.numbers, data.rows, losses, strict=True)
        ]
        return SuiteOutcome(results, items)


def _metric(group: str, losses: Sequence[SampleLoss], resamples: int, seed: int) -> Metric:
    totals = np.array([loss.total for loss in losses])
    counts = np.array([loss.num_tokens for loss in losses], dtype=np.float64)
    interval = ratio_interval(totals, counts, resamples=resamples, seed=seed)
    return figure(
        "loss", mean_token_loss(losses), interval,
        num_items=len(losses), groups=(group,), unit="nats", higher_is_better=False,
    )  # fmt: skip


def _answered(suite: str, group: str, number: int, messages: list[dict[str, Any]], loss: SampleLoss) -> AnsweredItem:
    def last(role: str) -> str:
        return next((str(message["content"]) for message in reversed(messages) if message["role"] == role), "")

    mean = loss.total / loss.num_tokens
    return AnsweredItem(suite, str(number), group, last("user"), last("assistant"), None, mean, loss.num_tokens)
