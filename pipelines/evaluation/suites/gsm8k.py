"""Suite ``gsm8k``: word problems answered freely, exact match of the number that the answer ends with."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord
from pipelines.evaluation.contract.answer import AnsweredItem, Decoding, StoredAnswer
from pipelines.evaluation.contract.results import SuiteResults, SuiteSettings, hash_items
from pipelines.evaluation.contract.suite import GeneratingSuite, PromptItem, SuiteOutcome, SuiteRequest
from pipelines.evaluation.contract.verdict import Judged
from pipelines.evaluation.statistics.figures import share
from pipelines.evaluation.suites.final_number import final_number
from pipelines.evaluation.suites.prepared_data import PreparedData, data_inputs, open_prepared

NAME: Final = "gsm8k"
VERSION: Final = "2"
MAX_NEW_TOKENS: Final = 512


class Gsm8kSuite(GeneratingSuite):
    """The questions of prepared data sets whose answers end with a number."""

    def __init__(self, request: SuiteRequest) -> None:
        self._request = request
        self._data = open_prepared(request, "sft")
        self._items = {data.name: self._read(data) for data in self._data}

    @property
    def decoding(self) -> Decoding:
        """See the base class."""
        return self._request.decoding(MAX_NEW_TOKENS)

    def inputs(self) -> list[InputRecord]:
        """The data sets."""
        return data_inputs(self._data)

    def plan(self) -> list[tuple[str, str]]:
        """Questions of each data set."""
        return [(_name(data), f"{len(data.numbers)} questions, {self.decoding.describe()}") for data in self._data]

    def items(self) -> list[PromptItem]:
        """See the base class."""
        return [item for items in self._items.values() for item in items]

    def score(self, answers: Sequence[StoredAnswer], template_hash: str, judged: Judged | None) -> list[SuiteOutcome]:
        """See the base class."""
        return [
            self._score(data, [answer for answer in answers if answer.suite == _name(data)], template_hash)
            for data in self._data
        ]

    def _read(self, data: PreparedData) -> list[PromptItem]:
        return [
            PromptItem(
                _name(data), str(number), data.name, self._asked(row["messages"]), expected=_expected(data, number, row)
            )
            for number, row in zip(data.numbers, data.rows, strict=True)
        ]

    def _asked(self, messages: Sequence[dict[str, str]]) -> tuple[dict[str, str], ...]:
        if not self._request.system:
            return tuple(messages[:-1])
        own = [message for message in messages[:-1] if message["role"] != "system"]
        return ({"role": "system", "content": self._request.system}, *own)

    def _score(self, data: PreparedData, answers: Sequence[StoredAnswer], template_hash: str) -> SuiteOutcome:
        given = [answer for answer in answers if answer.answer is not None]
        results = [final_number(answer.answer or "") for answer in given]
        scores = np.array(
            [
                float(result is not None and result == Decimal(str(answer.expected)))
                for answer, result in zip(given, results, strict=True)
            ]
        )
        metric = share(
            "exact_match", scores, data.name, higher_is_better=True,
            resamples=self._request.resamples, seed=self._request.seed,
        )  # fmt: skip
        counts = {
            "no_number": sum(result is None for result in results),
            "cut_off": sum(answer.finish == "length" for answer in given),
            "prompt_too_long": len(answers) - len(given),
        }
        outcome = SuiteResults(
            suite=_name(data), settings=self._settings(data, template_hash), metrics=(metric,), counts=counts
        )
        rows = zip(given, scores.tolist(), strict=True)
        return SuiteOutcome(outcome, [_answered(answer, score) for answer, score in rows])

    def _settings(self, data: PreparedData, template_hash: str) -> SuiteSettings:
        asked: list[Any] = [[item.id, list(item.messages), item.expected] for item in self._items[data.name]]
        return SuiteSettings(
            version=VERSION,
            split=data.split,
            prompt_hash=hash_items(asked),
            template_hash=template_hash,
            decoding=self.decoding.describe(),
            scoring="exact match of the number behind ####, in a box, behind 'answer is', or the last",
        )


def _expected(data: PreparedData, number: int, row: dict[str, Any]) -> str:
    result = final_number(row["messages"][-1]["content"])
    if result is None:
        raise InputError(
            f"the answer of row {number} of '{data.path}' has no number",
            fix="the suite gsm8k is for data sets whose answers end with one; leave this one out",
        )
    return format(result.normalize(), "f")


def _name(data: PreparedData) -> str:
    return f"{NAME}/{data.name}"


def _answered(answer: StoredAnswer, score: float) -> AnsweredItem:
    return AnsweredItem(
        answer.suite, answer.id, answer.group, answer.prompt, answer.answer or "", answer.expected, score
    )
