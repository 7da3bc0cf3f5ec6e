"""Answers as text for people to look at, in pieces that have a score and a weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipelines.token_weights.description import Piece, ShownAnswer
from pipelines.token_weights.storage import WeightedAnswer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_TOKENS: Final = 256


def shown_answer(answer: WeightedAnswer, tokenizer: PreTrainedTokenizerBase) -> ShownAnswer:
    """An answer's text: one piece for each token, or for several that make whole characters only together."""
    shown = min(len(answer.ids), _MOST_TOKENS)
    pieces: list[Piece] = []
    context, start = 0, 0  # Tokens [context, start) are written already, and stand before those that follow.
    for end in range(1, shown + 1):
        before = _text(answer.ids[context:start], tokenizer)
        text = _text(answer.ids[context:end], tokenizer)[len(before) :]
        if text.endswith("\ufffd") and end < shown:
            continue
        score, weight = (float(numbers[start:end].mean()) for numbers in (answer.score, answer.weight))
        pieces.append(Piece(text=text, score=score, weight=weight))
        context, start = start, end
    return ShownAnswer(row=answer.row, side=answer.side, pieces=pieces, num_more=len(answer.ids) - shown)


def _text(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)) if ids else ""
