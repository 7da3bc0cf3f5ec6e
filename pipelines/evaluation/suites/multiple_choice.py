"""Suite ``multiple-choice``: whether the right one of several choices is the likeliest answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from data_registry.core.errors import InputError
from data_registry.formats.choices import options_of
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.suite import SuiteOutcome, SuiteRequest
from pipelines.evaluation.suites.prepared_data import PreparedData, PreparedDataSuite, scoring_settings
from pipelines.evaluation.suites.scored_options import accuracy_results, option_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME: Final = "multiple-choice"
VERSION: Final = "1"


class MultipleChoiceSuite(PreparedDataSuite):
    """Log-probabilities of all choices of prepared questions; each data set has its own figure."""

    name = NAME
    task = "sft"

    def __init__(self, request: SuiteRequest) -> None:
        super().__init__(request)
        self._choices = {data.name: [_choices(data, index) for index in range(len(data.rows))] for data in self._data}

    def _amount(self, data: PreparedData) -> str:
        return f"{len(data.rows)} questions, {sum(map(len, self._choices[data.name]))} choices"

    def _measure(self, data: PreparedData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteOutcome:
        choices = self._choices[data.name]
        losses = option_losses(data, choices, model, tokenizer, self._request)
        # The first of equally likely ones.
        chosen = [
            options[int(np.argmin([loss.total for loss in scored]))]
            for options, scored in zip(choices, losses, strict=True)
        ]
        right = [row["messages"][-1]["content"].strip() for row in data.rows]
        scores = np.array([float(one == other) for one, other in zip(chosen, right, strict=True)])
        settings = scoring_settings(
            data,
            tokenizer,
            version=VERSION,
            prompts=(row["messages"] for row in data.rows),
            scoring="the choice whose text with its letter has the highest log-probability",
        )
        results = accuracy_results(NAME, data, settings, scores, self._request)
        items = [
            AnsweredItem(results.suite, str(number), data.name, row["messages"][-2]["content"], one, other, score)
            for number, row, one, other, score in zip(
                data.numbers, data.rows, chosen, right, scores.tolist(), strict=True
            )
        ]
        return SuiteOutcome(results, items)


def _choices(data: PreparedData, index: int) -> list[str]:
    """The choices of a row as answers: with their letter, or the letter alone where the right answer is only that."""
    messages = data.rows[index]["messages"]
    question, right = messages[-2]["content"], messages[-1]["content"].strip()
    lines = options_of(question)
    letters = [line.lstrip("(")[0] for line in lines]
    for options in (lines, letters):
        if right in options:
            return options
    what = "has no lines 'A. ...', 'B. ...' in its question" if not lines else f"has the answer '{right[:40]}'"
    raise InputError(
        f"row {data.numbers[index]} of '{data.path}' is no multiple-choice question: it {what}",
        fix="prepare a data set of questions with choices:  ogpsa prepare-data DATA --format choices --out DIR",
    )
