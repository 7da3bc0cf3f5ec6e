"""Suite ``answer-choice``: whether the right answer to a prompt is likelier than those to three others of its set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from data_registry.core.errors import InputError
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.suite import SuiteOutcome, SuiteRequest
from pipelines.evaluation.suites.prepared_data import PreparedData, PreparedDataSuite, scoring_settings
from pipelines.evaluation.suites.scored_options import accuracy_results, option_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME: Final = "answer-choice"
VERSION: Final = "1"
NUM_OTHERS: Final = 3


class AnswerChoiceSuite(PreparedDataSuite):
    """Likelihoods of four answers to each prompt of prepared data; each data set has its own figure. Chance is 1/4."""

    name = NAME
    task = "sft"

    def __init__(self, request: SuiteRequest) -> None:
        super().__init__(request)
        self._options = {data.name: _options(data) for data in self._data}

    def _amount(self, data: PreparedData) -> str:
        return f"{len(data.numbers)} prompts, {1 + NUM_OTHERS} answers to each"

    def _measure(self, data: PreparedData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteOutcome:
        options = self._options[data.name]
        losses = option_losses(data, options, model, tokenizer, self._request)
        # The right answer stands first and must be likelier than all others: a tie is no knowledge.
        means = [[loss.total / loss.num_tokens for loss in scored] for scored in losses]
        scores = np.array([float(scored[0] < min(scored[1:])) for scored in means])
        settings = scoring_settings(
            data,
            tokenizer,
            version=VERSION,
            prompts=([row["messages"], texts] for row, texts in zip(data.rows, options, strict=True)),
            scoring="the answer with the highest mean log-probability of its tokens, of four",
        )
        results = accuracy_results(NAME, data, settings, scores, self._request)
        items = [
            AnsweredItem(
                results.suite, str(number), data.name, row["messages"][-2]["content"], texts[int(np.argmin(scored))],
                texts[0], score,
            )
            for number, row, texts, scored, score in zip(
                data.numbers, data.rows, options, means, scores.tolist(), strict=True
            )
        ]  # fmt: skip
        return SuiteOutcome(results, items)


def _options(data: PreparedData) -> list[list[str]]:
    """For each row its answer, and behind it the answers of other rows that are nearest to it in length."""
    answers = [row["messages"][-1]["content"] for row in data.rows]
    distinct = list(dict.fromkeys(answers))
    if len(distinct) <= NUM_OTHERS:
        raise InputError(
            f"'{data.path}' has {len(distinct)} different answers, and {1 + NUM_OTHERS} are needed to choose from",
            fix="give the suite answer-choice more rows (--num-samples), or a data set with more",
        )
    return [[answer, *_nearest(answer, distinct)] for answer in answers]


def _nearest(answer: str, distinct: Sequence[str]) -> list[str]:
    """The others of like length, so that length says nothing about which one is right; the first of equal ones."""
    others = [other for other in distinct if other != answer]
    return sorted(others, key=lambda other: abs(len(other) - len(answer)))[:NUM_OTHERS]
