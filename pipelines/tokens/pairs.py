"""Preference pairs as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError
from pipelines.core.progress import Progress
from pipelines.tokens.conversations import encode, place_of_row
from pipelines.tokens.labels import IGNORED

if TYPE_CHECKING:
    import datasets

Pair = dict[str, Any]
SIDES = ("chosen", "rejected")


def encode_pair(row: Mapping[str, Any], tokenizer: Any, max_length: int | None) -> Pair:
    """Tokens of one preference pair.

    Args:
        row: a row with ``prompt``, ``chosen`` and ``rejected``, which are lists of messages.
        tokenizer: a fast tokenizer with a chat template.
        max_length: the greatest length of prompt and completion together, in tokens; completions are cut on the right.

    Returns:
        TRL's columns ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``. A completion ends with its end of turn.

    Raises:
        InputError: the prompt fills ``max_length``, the two sides do not share the prompt, or a completion has turns of
            the user.
    """
    start = len(row["prompt"])
    prompts, completions = [], []
    for side in SIDES:
        encoded = encode([*row["prompt"], *row[side]], tokenizer, max_length, train_from=start)
        trained = [index for index, label in enumerate(encoded.labels) if label != IGNORED]
        if not trained:
            raise InputError(
                f"the {side} completion has no token"
                + ("" if max_length is None else f" within the first {max_length} of the pair"),
                fix="raise --max-length, or leave such pairs out: prepare the data with --tokenizer and --max-length, "
                "or train with --drop-too-long",
            )
        first, last = trained[0], trained[-1]
        if last - first + 1 != len(trained):
            raise InputError(f"the {side} completion has several turns; a pair's completion is one answer")
        prompts.append(encoded.input_ids[:first])
        completions.append(encoded.input_ids[first : last + 1])
    if prompts[0] != prompts[1]:
        raise InputError("the chat template writes the prompt differently for the chosen and the rejected completion")
    return {"prompt_ids": prompts[0], "chosen_ids": completions[0], "rejected_ids": completions[1]}


def num_tokens(pair: Pair) -> int:
    """The tokens that a model reads of a pair: the prompt with either completion."""
    return sum(len(pair["prompt_ids"]) + len(pair[f"{side}_ids"]) for side in SIDES)


def encode_pairs(dataset: datasets.Dataset, tokenizer: Any, max_length: int | None, *, name: str) -> list[Pair]:
    """Apply :func:`encode_pair` to a whole prepared data set; errors say ``name`` and the row.

    Raises:
        InputError: as for :func:`encode_pair`, or the data set is empty.
    """
    if len(dataset) == 0:
        raise InputError("the data set is empty")
    pairs = []
    with Progress(f"tokenizing {name}", total=len(dataset), unit="pairs") as progress:
        for index, row in enumerate(dataset):
            try:
                pairs.append(encode_pair(row, tokenizer, max_length))
            except InputError as error:
                raise InputError(error.what, where=place_of_row(name, index), fix=error.fix) from error
            progress.advance()
    return pairs


def as_token_rows(pairs: Iterable[Pair]) -> list[dict[str, list[int]]]:
    """Both completions of every pair as rows for the token loss, as the original code's DPO stage treats them."""
    rows = []
    for pair in pairs:
        for side in SIDES:
            completion = pair[f"{side}_ids"]
            ids = [*pair["prompt_ids"], *completion]
            rows.append({"input_ids": ids, "labels": [IGNORED] * len(pair["prompt_ids"]) + completion})
    return rows
