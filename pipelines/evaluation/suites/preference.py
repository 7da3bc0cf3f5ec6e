"""Suite ``preference``: how often, and by how much, a model finds the preferred answer likelier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from pipelines.core.progress import Progress
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Metric, SuiteResults
from pipelines.evaluation.contract.suite import SuiteOutcome
from pipelines.evaluation.statistics.figures import Scores, mean_nats, share
from pipelines.evaluation.suites.prepared_data import PreparedData, PreparedDataSuite, scoring_settings
from pipelines.evaluation.suites.sample_losses import sample_losses
from pipelines.evaluation.suites.scored_rows import check_scored, scored_length
from pipelines.tokens.labels import IGNORED
from pipelines.tokens.pairs import SIDES, Pair, encode_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME: Final = "preference"
VERSION: Final = "1"
_ACCURACY, _MARGIN = "accuracy", "margin"


class PreferenceSuite(PreparedDataSuite):
    """Log-probabilities of both answers of prepared pairs; each data set has its own figures."""

    name = NAME
    task = "preference"

    def _amount(self, data: PreparedData) -> str:
        return f"{len(data.numbers)} pairs"

    def _measure(self, data: PreparedData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteOutcome:
        max_length = scored_length(model, self._request.max_length)
        pairs = encode_pairs(data.rows, tokenizer, max_length, name=data.name)
        samples = [_sample(pair, side) for pair in pairs for side in SIDES]
        asked = self._request.max_length
        check_scored([ids for ids, _ in samples], model, tokenizer, max_length=asked, name=data.name)
        with Progress(f"scoring {data.name}", total=len(samples), unit="answers") as progress:
            losses = sample_losses(model, samples, batch_size=self._request.batch_size, progress=progress.advance)
        totals = np.array([loss.total for loss in losses]).reshape(-1, len(SIDES))
        # The chosen one comes first: its loss is the smaller the more it is preferred.
        margins = totals[:, 1] - totals[:, 0]
        cut = any(len(ids) >= max_length for ids, _ in samples)
        results = SuiteResults(
            suite=f"{NAME}/{data.name}",
            settings=scoring_settings(
                data,
                tokenizer,
                version=VERSION,
                prompts=([row["prompt"], row["chosen"], row["rejected"]] for row in data.rows),
                scoring="log-probability of the whole answer: chosen less rejected; a tie is no preference",
                max_length=max_length if cut else None,
            ),
            metrics=self._metrics(margins),
        )
        return SuiteOutcome(results, list(_items(results.suite, data, margins)))

    def _metrics(self, margins: Scores) -> tuple[Metric, ...]:
        resamples, seed = self._request.resamples, self._request.seed
        right = (margins > 0).astype(np.float64)
        return (
            share(_ACCURACY, right, _ACCURACY, higher_is_better=True, resamples=resamples, seed=seed),
            mean_nats(_MARGIN, margins, _MARGIN, higher_is_better=True, resamples=resamples, seed=seed),
        )


def _sample(pair: Pair, side: str) -> tuple[list[int], list[int]]:
    prompt, completion = pair["prompt_ids"], pair[f"{side}_ids"]
    return [*prompt, *completion], [IGNORED] * len(prompt) + list(completion)


def _items(suite: str, data: PreparedData, margins: Sequence[float]) -> list[AnsweredItem]:
    """Each pair once for each figure, under the figure's name as its group."""
    items = []
    for number, row, margin in zip(data.numbers, data.rows, margins, strict=True):
        question, chosen = row["prompt"][-1]["content"], row["chosen"][-1]["content"]
        scores = {_ACCURACY: float(margin > 0), _MARGIN: float(margin)}
        items += [
            AnsweredItem(suite, f"{number}/{name}", name, question, chosen, None, score)
            for name, score in scores.items()
        ]
    return items
