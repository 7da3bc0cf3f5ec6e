"""Whether rows in tokens fit a model: the one place that says so, before any work begins, for every command.

A row may have token ids that the model has no embeddings for, or be longer than the model's positions. Models differ in
what they do then (an index error, a device-side assert, or numbers without meaning), and none of them says why.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError
from pipelines.models.limits import Limits
from pipelines.tokens.conversations import encode_dataset, place_of_row
from pipelines.tokens.pairs import SIDES, Pair, encode_pairs

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """What rows must keep to.

    Attributes:
        max_length: the greatest length in tokens (``--max-length``); what lies beyond is cut.
        drop_too_long: whether rows that are too long are left out, instead of cut or refused.
        limits: what the model has room for.
        left_out: how many rows were left out, by the name of their data set; for the record of the result.
    """

    max_length: int
    drop_too_long: bool = False
    limits: Limits = field(default_factory=Limits)
    left_out: dict[str, int] = field(default_factory=dict, compare=False)

    def leave_out(self, name: str, count: int) -> None:
        """Count rows of a data set that are left out; several sets may have one name."""
        self.left_out[name] = self.left_out.get(name, 0) + count

    @property
    def longest(self) -> int:
        """The greatest length in tokens that is used whole."""
        positions = self.limits.positions
        return self.max_length if positions is None else min(self.max_length, positions)

    @property
    def cut_at(self) -> int | None:
        """The length at which rows are cut when they are tokenised; None where their whole length must be known."""
        return None if self.drop_too_long else self.max_length


def check_token_ids(
    sequences: Iterable[Sequence[int]], num_embeddings: int | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuse a tokenizer whose tokens the model has no embeddings for, or that makes no tokens of a text.

    Args:
        sequences: the token ids that the model is to read.
        num_embeddings: the number of token ids that the model has embeddings for; None where it is not known.
        tokenizer: the tokenizer that they come from.

    Raises:
        InputError: one of the ids lies beyond the embeddings, and the message names the token and both sizes; or a
            sequence is empty.
    """
    highest = 0
    for ids in sequences:
        if len(ids) == 0:
            raise InputError(
                "the tokenizer makes no token of what the chat template writes",
                where=f"tokenizer '{tokenizer.name_or_path}'",
                fix="give another template with --chat-template FILE, or the tokenizer that the model was trained with",
            )
        highest = max(highest, max(ids))
    if num_embeddings is not None and highest >= num_embeddings:
        raise InputError(
            f"the tokenizer gives token {highest}, and the model has embeddings for {num_embeddings} only",
            where=f"tokenizer '{tokenizer.name_or_path}', token {tokenizer.convert_ids_to_tokens(highest)!r}",
            fix="put the tokenizer that the model was trained with beside its weights; or give the model embeddings "
            "for the tokens that were added (model.resize_token_embeddings), and save it",
        )


def encode_fitting(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    bounds: Bounds,
    *,
    num_workers: int = 1,
    name: str = "",
) -> datasets.Dataset:
    """Tokenise conversations as :func:`encode_dataset` does, and make sure that they fit the model.

    Args:
        rows: the data set; its rows have ``messages``.
        tokenizer: a fast tokenizer with a chat template.
        bounds: what the rows must keep to.
        num_workers: the number of processes; it does not change the result.
        name: the name of the data set; the progress bar and errors show it.

    Returns:
        Columns ``input_ids`` and ``labels`` (lists of int32); rows that were left out are missing.

    Raises:
        InputError: as for :func:`encode_dataset`; or the rows do not fit, or none is left.
    """
    return encode_kept(rows, tokenizer, bounds, num_workers=num_workers, name=name)[0]


def encode_kept(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, bounds: Bounds, *, num_workers: int = 1, name: str = ""
) -> tuple[datasets.Dataset, list[int]]:
    """What :func:`encode_fitting` gives, and for each of its rows the number of the row that it was made of."""
    import pyarrow.compute as pc

    encoded = encode_dataset(rows, tokenizer, bounds.cut_at, num_workers=num_workers, name=name)
    ids = encoded.data.column("input_ids")
    kept = rows_that_fit(pc.list_value_length(ids).to_pylist(), bounds, name=name)
    if kept is not None:
        encoded = encoded.select(kept)
    highest = pc.max(pc.list_flatten(ids if kept is None else ids.take(kept))).as_py()
    check_token_ids([[highest]], bounds.limits.num_embeddings, tokenizer)
    return encoded, list(range(len(rows))) if kept is None else kept


def encode_fitting_pairs(rows: datasets.Dataset, tokenizer: Any, bounds: Bounds, *, name: str) -> list[Pair]:
    """Tokenise preference pairs as :func:`encode_pairs` does, and make sure that both sides fit the model.

    Args:
        rows: the data set; its rows have ``prompt``, ``chosen`` and ``rejected``.
        tokenizer: a fast tokenizer with a chat template.
        bounds: what the pairs must keep to.
        name: the name of the data set, for progress and errors.

    Raises:
        InputError: as for :func:`encode_pairs`; or the pairs do not fit, or none is left.
    """
    return encode_kept_pairs(rows, tokenizer, bounds, name=name)[0]


def encode_kept_pairs(
    rows: datasets.Dataset, tokenizer: Any, bounds: Bounds, *, name: str
) -> tuple[list[Pair], list[int]]:
    """What :func:`encode_fitting_pairs` gives, and for each pair the number of the row that it was made of."""
    pairs = encode_pairs(rows, tokenizer, bounds.cut_at, name=name)
    kept = rows_that_fit([length_of_pair(pair) for pair in pairs], bounds, name=name, unit="pairs")
    if kept is not None:
        pairs = [pairs[index] for index in kept]
    sequences = (pair[column] for pair in pairs for column in ("prompt_ids", *(f"{side}_ids" for side in SIDES)))
    check_token_ids(sequences, bounds.limits.num_embeddings, tokenizer)
    return pairs, list(range(len(rows))) if kept is None else kept


def length_of_pair(pair: Pair) -> int:
    """The length in tokens of the prompt with the longer of the two completions."""
    return len(pair["prompt_ids"]) + max(len(pair[f"{side}_ids"]) for side in SIDES)


def rows_that_fit(lengths: Sequence[int], bounds: Bounds, *, name: str, unit: str = "rows") -> list[int] | None:
    """The rows to keep, None for all of them; says how many are left out, and counts them in the bounds.

    Args:
        lengths: the length of every row in tokens, as :attr:`Bounds.cut_at` cut them.
        bounds: what the rows must keep to.
        name: the name of the data set, for messages.
        unit: the word for several rows.

    Raises:
        InputError: rows are longer than the model's positions and are not to be left out, or no row is left.
    """
    reach = sum(length == bounds.cut_at for length in lengths)
    if reach:
        logger.warning(
            "%d of %d %s reach --max-length %d, and what lies beyond is cut", reach, len(lengths), name or unit,
            bounds.max_length,
        )  # fmt: skip
    positions = bounds.limits.positions
    limit = bounds.longest if bounds.drop_too_long else positions
    beyond = [] if limit is None else [index for index, length in enumerate(lengths) if length > limit]
    if not beyond:
        return None
    first = f"{place_of_row(name, beyond[0])} has {lengths[beyond[0]]} tokens"
    if not bounds.drop_too_long:
        raise InputError(
            f"{len(beyond)} of {len(lengths)} {unit} are longer than the {positions} positions of the model",
            where=first,
            fix=f"--max-length {positions} cuts them, and --drop-too-long leaves them out",
        )
    if len(beyond) == len(lengths):
        raise InputError(
            f"no {unit.removesuffix('s')} is left: all {len(lengths)} are longer than {limit} tokens",
            where=first,
            fix=("raise --max-length, or " if limit == bounds.max_length else "") + "leave --drop-too-long out",
        )
    why = "the model's positions" if limit == positions and limit != bounds.max_length else "--max-length"
    logger.warning(
        "%d of %d %s are longer than %d tokens (%s) and are left out; the first of them: %s",
        len(beyond), len(lengths), unit, limit, why, first,
    )  # fmt: skip
    bounds.leave_out(name, len(beyond))
    left_out = set(beyond)
    return [index for index in range(len(lengths)) if index not in left_out]
