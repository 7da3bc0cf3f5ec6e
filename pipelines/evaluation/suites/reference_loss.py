"""Suite ``reference-loss``: the mean token loss on the answers of any prepared SFT data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.core.progress import Progress
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Metric, SuiteResults
from pipelines.evaluation.contract.suite import SuiteOutcome
from pipelines.evaluation.statistics.figures import figure
from pipelines.evaluation.statistics.intervals import ratio_interval
from pipelines.evaluation.suites.prepared_data import PreparedData, PreparedDataSuite, scoring_settings
from pipelines.evaluation.suites.sample_losses import SampleLoss, mean_token_loss, sample_losses
from pipelines.evaluation.suites.scored_rows import check_scored, scored_length
from pipelines.tokens.conversations import encode_dataset

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "reference-loss"
VERSION = "1"


class ReferenceLossSuite(PreparedDataSuite):
    """The losses on the data sets of a request; each has its own figures."""

    name = NAME
    task = "sft"

    def _amount(self, data: PreparedData) -> str:
        return f"{len(data.numbers)} samples"

    def _measure(self, data: PreparedData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteOutcome:
        max_length = scored_length(model, self._request.max_length)
        encoded = encode_dataset(data.rows, tokenizer, max_length, name=data.name)
        samples = [(row["input_ids"], row["labels"]) for row in encoded]
        asked = self._request.max_length
        check_scored([ids for ids, _ in samples], model, tokenizer, max_length=asked, name=data.name)
        with Progress(f"loss on {data.name}", total=len(samples), unit="samples") as progress:
            losses = sample_losses(model, samples, batch_size=self._request.batch_size, progress=progress.advance)
        cut = max(len(ids) for ids, _ in samples) >= max_length
        results = SuiteResults(
            suite=f"{NAME}/{data.name}",
            settings=scoring_settings(
                data,
                tokenizer,
                version=VERSION,
                prompts=(row["messages"] for row in data.rows),
                scoring="negative log-likelihood of the answer's tokens",
                max_length=max_length if cut else None,
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
