"""Prepared data sets as suites read them: of one task, drawn from, and told apart by their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from data_registry.core.errors import ArtifactError, ConfigError, InputError
from data_registry.core.manifest import InputRecord, Manifest, as_input
from data_registry.prepared import load_prepared, prepared_table
from pipelines.evaluation.contract.results import SuiteSettings, hash_items, hash_text, hash_tokenizer
from pipelines.evaluation.contract.suite import SuiteOutcome, SuiteRequest
from pipelines.tokens.chat_template import chat_template_of

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PreparedData:
    """One data set: its name, where it lies, its task, the numbers of the rows drawn from it, and its manifest."""

    name: str
    path: Path
    task: str
    numbers: list[int]
    manifest: Manifest

    @cached_property
    def rows(self) -> datasets.Dataset:
        """The rows that were drawn. They are opened when they are asked for: many a command only looks what is there.

        Raises:
            ArtifactError: it is another data set than it was.
        """
        rows, manifest = load_prepared(self.path, task=self.task)
        if manifest.fingerprint != self.manifest.fingerprint:
            raise ArtifactError(
                f"the data set '{self.path}' changed while it was being read",
                fix="run the command again once nothing writes there any more",
            )
        return rows.select(self.numbers)

    @property
    def split(self) -> str:
        """The part of its source that it was made from."""
        return str(self.manifest.config.get("split", "all"))


def open_prepared(request: SuiteRequest, task: str) -> list[PreparedData]:
    """The data sets of a request, with a seeded draw of their rows.

    Raises:
        ConfigError: two have one name.
        InputError: a data set is empty, was not prepared, or is for another task.
        ArtifactError: a data set does not verify.
    """
    names = [path.resolve().name for path in request.data]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two data sets of --data are called '{twice[0]}'; give one of them another name")
    return [_open(name, path, request, task) for name, path in zip(names, request.data, strict=True)]


def data_inputs(data: Sequence[PreparedData]) -> list[InputRecord]:
    """Records of data sets."""
    return [as_input("data", entry.path, entry.manifest) for entry in data]


def scoring_settings(
    data: PreparedData,
    tokenizer: PreTrainedTokenizerBase,
    *,
    version: str,
    prompts: Iterable[object],
    scoring: str,
    max_length: int | None = None,
) -> SuiteSettings:
    """The settings of figures of given answers, which no decoding has made.

    Args:
        data: the data set.
        tokenizer: the tokenizer, whose template wrote the rows.
        version: the version of the suite.
        prompts: what was scored, row by row.
        scoring: how it was scored, in words.
        max_length: the length at which rows were cut; None where none was.
    """
    return SuiteSettings(
        version=version,
        split=data.split,
        prompt_hash=hash_items(prompts),
        template_hash=hash_text(chat_template_of(tokenizer)),
        decoding="none",
        scoring=scoring,
        max_length=max_length,
        tokenizer_hash=hash_tokenizer(tokenizer),
    )


class PreparedDataSuite(ABC):
    """A suite that scores given answers of prepared data sets; each data set has its own figures.

    Args:
        request: what the suite is asked to do.

    Attributes:
        name: the name of the suite.
        task: the task that the data sets must have been prepared for.
    """

    name: ClassVar[str]
    task: ClassVar[str]

    def __init__(self, request: SuiteRequest) -> None:
        self._request = request
        self._data = open_prepared(request, self.task)

    def inputs(self) -> list[InputRecord]:
        """Records of the data sets."""
        return data_inputs(self._data)

    def plan(self) -> list[tuple[str, str]]:
        """How much of each data set would be scored."""
        return [(f"{self.name}/{data.name}", self._amount(data)) for data in self._data]

    def run(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[SuiteOutcome]:
        """Score every data set.

        Raises:
            InputError: the chat template is missing or refuses a row, or nothing of an answer is left to be scored.
            NumericsError: a loss or log-probability is not finite.
        """
        return [self._measure(data, model, tokenizer) for data in self._data]

    @abstractmethod
    def _amount(self, data: PreparedData) -> str:
        """How much of a data set is scored, in words."""

    @abstractmethod
    def _measure(self, data: PreparedData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteOutcome:
        """Score one data set."""


def _open(name: str, path: Path, request: SuiteRequest, task: str) -> PreparedData:
    rows, manifest = prepared_table(path, task=task)
    if len(rows) == 0:
        raise InputError(f"the data set '{path}' is empty")
    numbers = np.arange(len(rows))
    if request.num_samples is not None and request.num_samples < len(rows):
        generator = np.random.default_rng(request.seed)
        numbers = np.sort(generator.permutation(len(rows))[: request.num_samples])
    return PreparedData(name, path, task, numbers.tolist(), manifest)
