"""Suite ``divergence``: how far a model is from what a starting model expected at the places of its own answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from data_registry.core.errors import ConfigError, InputError, NumericsError
from data_registry.prepared import SAMPLES
from pipelines.core.progress import Progress
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import SuiteResults
from pipelines.evaluation.contract.suite import SuiteOutcome, SuiteRequest
from pipelines.evaluation.statistics.figures import figure
from pipelines.evaluation.statistics.intervals import ratio_interval
from pipelines.evaluation.suites.prepared_data import PreparedData, PreparedDataSuite, scoring_settings
from pipelines.evaluation.suites.scored_rows import check_scored, scored_length
from pipelines.models.limits import limits_of_model
from pipelines.passes.distributions import TopLogProbs, batches_by_size, forward_kl, places_of
from pipelines.samples.storage import Sample, StoredLogProbs
from pipelines.samples.tokens import Tokens, training_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME: Final = "divergence"
VERSION: Final = "1"


class DivergenceSuite(PreparedDataSuite):
    """The mean KL divergence from the model that made samples, over the places of all answers; 0 for that model."""

    name = NAME
    task = "sft"

    def __init__(self, request: SuiteRequest) -> None:
        super().__init__(request)
        for data in self._data:
            if data.manifest.kind != SAMPLES:
                raise ConfigError(
                    f"the suite divergence needs a model's own answers, and '{data.path}' is a {data.manifest.kind}",
                    fix=f"ogpsa sample MODEL --data {data.path} --log-probs 64 --out DIR, and --data DIR",
                )
        self._stored = {data.name: StoredLogProbs(data.path) for data in self._data}

    def _amount(self, data: PreparedData) -> str:
        return f"{len(data.numbers)} answers"

    def _measure(self, data: PreparedData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteOutcome:
        stored = self._stored[data.name]
        rows = _tokens(data, stored, tokenizer)
        length = scored_length(model, self._request.max_length)
        check_scored(
            [ids[:length] for ids, _ in rows], model, tokenizer, max_length=self._request.max_length, name=data.name
        )
        rows = [(ids[:length], labels[:length]) for ids, labels in rows]
        starts = [stored.row(number) for number in data.numbers]
        batches = batches_by_size(
            [len(ids) for ids, _ in rows], self._request.batch_size, limits_of_model(model).num_embeddings or 1
        )
        totals, counts = np.zeros(len(rows)), np.zeros(len(rows))
        was_training = model.training
        model.eval()
        try:
            with Progress(f"divergence on {data.name}", total=len(rows), unit="answers") as progress:
                for batch in batches:
                    found = _divergences(model, [rows[index] for index in batch], [starts[index] for index in batch])
                    for index, values in zip(batch, found, strict=True):
                        totals[index], counts[index] = float(values.double().sum()), len(values)
                    progress.advance(len(batch))
        finally:
            model.train(was_training)
        return self._outcome(data, tokenizer, totals, counts, max(len(ids) for ids, _ in rows) >= length, length)

    def _outcome(
        self, data: PreparedData, tokenizer: PreTrainedTokenizerBase, totals: np.ndarray, counts: np.ndarray,
        is_cut: bool, length: int,
    ) -> SuiteOutcome:  # fmt: skip
        if not np.isfinite(totals).all():
            raise NumericsError(
                f"the divergence of the model is not finite on an answer of '{data.path}'",
                fix="look at the run that made the model: it has diverged; or evaluate with --precision fp32",
            )
        if not counts.any():
            raise InputError(f"no answer of '{data.path}' begins within {length} tokens")
        results = SuiteResults(
            suite=f"{NAME}/{data.name}",
            settings=scoring_settings(
                data,
                tokenizer,
                version=VERSION,
                prompts=(row["messages"] for row in data.rows),
                scoring="KL divergence from what the samples say of their model, mean over places",
                max_length=length if is_cut else None,
            ),
            metrics=(
                figure(
                    "kl",
                    float(totals.sum() / counts.sum()),
                    ratio_interval(totals, counts, resamples=self._request.resamples, seed=self._request.seed),
                    num_items=len(totals), groups=(data.name,), unit="nats", higher_is_better=False,
                ),
            ),
        )  # fmt: skip
        items = [
            AnsweredItem(
                results.suite, str(number), data.name, row["messages"][-2]["content"], row["messages"][-1]["content"],
                None, float(total / max(count, 1)), int(count),
            )
            for number, row, total, count in zip(data.numbers, data.rows, totals, counts, strict=True)
        ]  # fmt: skip
        return SuiteOutcome(results, items)


def _tokens(data: PreparedData, stored: StoredLogProbs, tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """The rows in tokens, which must be those that the samples are about."""
    samples = [
        Sample(row["messages"], row["prompt_row"], row["sample"], row["finish"], row["num_tokens"]) for row in data.rows
    ]
    rows = training_tokens(samples, tokenizer)
    for number, (ids, labels) in zip(data.numbers, rows, strict=True):
        theirs = stored.tokens[int(stored.starts[number]) : int(stored.starts[number + 1])].tolist()
        if [ids[place + 1] for place in places_of(labels)] != theirs:
            raise ConfigError(
                f"the samples in '{data.path}' were made with another tokenizer or chat template than this model's"
            )
    return rows


@torch.inference_mode()
def _divergences(model: PreTrainedModel, rows: list[Tokens], starts: list[TopLogProbs]) -> list[torch.Tensor]:
    """The divergence at each place of each row of a batch; padding is on the right, where a causal model is blind."""
    longest = max(len(ids) for ids, _ in rows)
    ids_BL = torch.zeros((len(rows), longest), dtype=torch.int64)
    mask_BL = torch.zeros_like(ids_BL)
    for row, (ids, _) in enumerate(rows):
        ids_BL[row, : len(ids)] = torch.tensor(ids)
        mask_BL[row, : len(ids)] = 1
    logits_BLV = model(
        input_ids=ids_BL.to(model.device), attention_mask=mask_BL.to(model.device), use_cache=False
    ).logits
    found = []
    for row, ((_, labels), whole) in enumerate(zip(rows, starts, strict=True)):
        places = places_of(labels)
        start = TopLogProbs(
            *(part[: len(places)].to(logits_BLV.device) for part in (whole.ids, whole.log_probs, whole.rest))
        )
        found.append(forward_kl(start, logits_BLV[row, places]).cpu())
    return found
