"""Whether a tokenizer fits a model: no token that the model has no embedding for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from data_registry.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_token_ids(sequences: Iterable[Sequence[int]], model: PreTrainedModel, tokenizer_name: str) -> None:
    """Refuse a tokenizer whose tokens the model has no embeddings for.

    Raises:
        InputError: naming both sizes.
    """
    check_token_range(sequences, model.get_input_embeddings().num_embeddings, tokenizer_name)


def check_token_range(sequences: Iterable[Sequence[int]], num_embeddings: int, tokenizer_name: str) -> None:
    """Do as :func:`check_token_ids` does, for a model whose number of embeddings is all that is known."""
    highest = max((max(ids) for ids in sequences if ids), default=0)
    if highest >= num_embeddings:
        raise InputError(
            f"the tokenizer gives token {highest}, and the model has embeddings for {num_embeddings} only",
            where=f"tokenizer '{tokenizer_name}'",
            fix="put the tokenizer that the model was trained with beside its weights",
        )
