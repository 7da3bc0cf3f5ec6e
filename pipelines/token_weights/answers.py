"""Answers to be scored: the rows of a data set in tokens as training encodes them, and which tokens are labelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError
from data_registry.prepared import load_prepared
from pipelines.configs.score_tokens import SIDES_OF, ScoreTokensConfig
from pipelines.token_weights.opening import answer_tokens
from pipelines.tokens.fitting import Bounds, encode_kept, encode_kept_pairs
from pipelines.tokens.labels import IGNORED
from pipelines.tokens.pairs import SIDES

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """One answer in tokens.

    Attributes:
        row: the number of its row among those that training reads.
        side: ``answer``, ``chosen`` or ``rejected``.
        input_ids: the tokens of the whole row.
        labels: the token where it is trained, ``IGNORED`` elsewhere; as long as ``input_ids``.
    """

    row: int
    side: str
    input_ids: list[int]
    labels: list[int]

    @property
    def ids(self) -> list[int]:
        """The tokens that get a weight."""
        return answer_tokens(self.labels)


@dataclass(frozen=True)
class Answers:
    """The answers to be scored, side by side.

    Attributes:
        name: the name of the data set, for messages.
        rows: the rows that training reads, in normal form and in order.
        numbers: for each of them its number in the data set.
        answers: the answers, by side in the order that was asked for, each in the order of the rows.
        tokens: for preference data, by side the tokens of every row's answer; empty for SFT.
    """

    name: str
    rows: datasets.Dataset
    numbers: list[int]
    answers: list[Answer]
    tokens: Mapping[str, list[list[int]]]


def sides_of(config: ScoreTokensConfig, task: str) -> list[str]:
    """The sides that are scored.

    Raises:
        InputError: rows for this task do not have one that is asked for.
    """
    there = SIDES_OF[task]
    for side in config.side:
        if side not in there:
            raise InputError(
                f"'{config.data}' holds rows for {task}, which have no side '{side}'",
                fix="the sides of preference pairs are rejected and chosen, that of rows for SFT is answer",
            )
    return list(config.side) or [there[0]]


def read_answers(config: ScoreTokensConfig, tokenizer: PreTrainedTokenizerBase, bounds: Bounds) -> Answers:
    """The answers of the data set.

    Raises:
        InputError: the data set has no such side, or a row cannot be encoded or does not fit.
        ArtifactError: it does not verify.
    """
    rows, manifest = load_prepared(config.data)
    task = str(manifest.summary["task"])
    sides, name = sides_of(config, task), config.data.name
    if task == "sft":
        encoded, numbers = encode_kept(rows, tokenizer, bounds, name=name)
        answers = [Answer(number, "answer", row["input_ids"], row["labels"]) for number, row in enumerate(encoded)]
        return Answers(name, rows.select(numbers), numbers, answers, {})
    pairs, numbers = encode_kept_pairs(rows, tokenizer, bounds, name=name)
    answers = [_of_pair(pair, number, side) for side in sides for number, pair in enumerate(pairs)]
    tokens = {side: [pair[f"{side}_ids"] for pair in pairs] for side in SIDES}
    return Answers(name, rows.select(numbers), numbers, answers, tokens)


def _of_pair(pair: Mapping[str, Any], row: int, side: str) -> Answer:
    prompt, completion = pair["prompt_ids"], pair[f"{side}_ids"]
    return Answer(row, side, [*prompt, *completion], [IGNORED] * len(prompt) + completion)
