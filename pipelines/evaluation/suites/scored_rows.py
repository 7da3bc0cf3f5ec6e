"""What of a row is scored, and whether the model can: the same for all suites that score given answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.models.limits import limits_of_model
from pipelines.tokens.fitting import check_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def scored_length(model: PreTrainedModel, max_length: int) -> int:
    """The longest sequence that may be scored: positions beyond a model's own are undefined, or an index error."""
    return min(max_length, limits_of_model(model).positions or max_length)


def length_option(model: PreTrainedModel, max_length: int) -> str:
    """What decides :func:`scored_length`, in words."""
    is_own = scored_length(model, max_length) < max_length
    return "are the positions that the model has" if is_own else "is --max-length"


def check_scored(
    sequences: Sequence[Sequence[int]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    name: str,
) -> None:
    """Refuse token ids that the model does not know, and say how many answers are scored in part only.

    Args:
        sequences: the token ids that are scored.
        model: the model that scores them.
        tokenizer: the tokenizer that they come from.
        max_length: the length that the options allow, in tokens.
        name: the name of the data set.

    Raises:
        InputError: as for :func:`check_token_ids`.
    """
    check_token_ids(sequences, limits_of_model(model).num_embeddings, tokenizer)
    longest = scored_length(model, max_length)
    num_full = sum(len(ids) >= longest for ids in sequences)
    if num_full:
        logger.warning(
            "%s: %d of %d answers are scored up to %d tokens with their question, which %s; what follows is cut",
            name, num_full, len(sequences), longest, length_option(model, max_length),
        )  # fmt: skip
