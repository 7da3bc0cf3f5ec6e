"""Samples in tokens, as training has them: what was stored of a model is about these very tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.samples.storage import Sample
from pipelines.tokens.conversations import encode_batch
from pipelines.tokens.labels import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = tuple[Sequence[int], Sequence[int]]
"""The token ids and the labels of a row."""


def training_tokens(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """The rows in tokens as training has them, with labels on the last answer alone.

    The end of turn that the template puts after an answer that was cut off is not labelled: the model did not end
    there.
    """
    encoded = encode_batch(
        [sample.messages for sample in samples],
        tokenizer,
        train_from=[len(sample.messages) - 1 for sample in samples],
        places=[f"the answer to row {sample.prompt}" for sample in samples],
    )
    return [
        (row.input_ids, row.labels if sample.finish == "end" else _without_end(row.labels, tokenizer))
        for row, sample in zip(encoded, samples, strict=True)
    ]


def _without_end(labels: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    kept = list(labels)
    special = set(tokenizer.all_special_ids)
    for index in reversed(range(len(kept))):
        if kept[index] == IGNORED:
            continue
        if kept[index] not in special:
            break
        kept[index] = IGNORED
    return kept
