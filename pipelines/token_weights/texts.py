"""Answers as text for people to look at, in pieces that have a score and a weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.token_weights.description import Piece, ShownAnswer
from pipelines.token_weights.storage import WeightedAnswer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def shown_answer(answer: WeightedAnswer, tokenizer: PreTrainedTokenizerBase) -> ShownAnswer:
    """An answer's text: one piece for each token, or for several that make whole characters only together."""
    pieces: list[Piece] = []
    written, start = "", 0
    for end in range(1, len(answer.ids) + 1):
        text = str(tokenizer.decode(answer.ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if text.endswith("\ufffd") and end < len(answer.ids):
            continue
        score, weight = (float(numbers[start:end].mean()) for numbers in (answer.score, answer.weight))
        pieces.append(Piece(text=text[len(written) :], score=score, weight=weight))
        written, start = text, end
    return ShownAnswer(row=answer.row, side=answer.side, pieces=pieces)
