"""Whether an answer follows an instruction, as far as a program can say: pure functions on texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_SENTENCE_END: Final = re.compile(r"(?<!\b[A-Z])(?<!\bMr)(?<!\bDr)(?<!\bMrs)[.!?]+[\"')\]]*(?=\s|$)")
_ITEM: Final = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])\s+\S")


def words_in(text: str) -> list[str]:
    """The words of a text in small letters, without marks."""
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower())


def has_word(answer: str, wanted: Sequence[str]) -> bool:
    """Whether all words occur, in any case of letters, also in the plural with ``s``."""
    found = set(words_in(answer))
    return all(word in found or f"{word}s" in found for word in wanted)


def without_word(answer: str, unwanted: Sequence[str]) -> bool:
    """Whether none of the words occurs."""
    return set(words_in(answer)).isdisjoint(unwanted)


def begins_with(answer: str, beginning: str) -> bool:
    """Whether the answer begins so, whatever the case of letters, and goes on."""
    text = answer.lstrip(" \n\"'*#")
    return text.lower().startswith(beginning.lower()) and len(words_in(text)) > len(words_in(beginning))


def ends_with(answer: str, end: str) -> bool:
    """Whether the answer ends so, whatever the case of letters; marks behind words do not count."""
    text = answer.rstrip(" \n\"'*")
    if words_in(end):
        text = text.rstrip(".!,")
    return text.lower().endswith(end.lower()) and len(words_in(text)) > len(words_in(end))


def num_sentences(answer: str, number: int) -> bool:
    """Whether there are so many sentences, and all of them end with a mark."""
    text = answer.strip()
    ends = list(_SENTENCE_END.finditer(text))
    return len(ends) == number and ends[-1].end() == len(text)


def num_items(answer: str, number: int) -> bool:
    """Whether there are so many list items, or as many lines if there are no marks of a list."""
    lines = [line for line in answer.splitlines() if line.strip()]
    items = [line for line in lines if _ITEM.match(line)]
    return len(items or lines) == number


def num_in_row(answer: str, number: int) -> bool:
    """Whether it is one line with so many short parts between commas; "and" before the last is allowed."""
    text = re.sub(r",?\s+and\s+", ", ", answer.strip().rstrip("."))
    parts = [part.strip() for part in text.split(",")]
    return "\n" not in text and len(parts) == number and all(1 <= len(words_in(part)) <= 4 for part in parts)


def one_of(answer: str, options: Sequence[str]) -> bool:
    """Whether the answer is one of the words and nothing else but marks."""
    return [*words_in(answer)] in [[option] for option in options]


def is_number(answer: str, number: int) -> bool:
    """Whether the answer is this number and nothing else but marks."""
    return words_in(answer) == [str(number)]


def in_capitals(answer: str, _: int) -> bool:
    """Whether all letters are capitals."""
    return answer.isupper()


def in_small_letters(answer: str, _: int) -> bool:
    """Whether all letters are small."""
    return answer.islower()


def at_most_words(answer: str, number: int) -> bool:
    """Whether there are at most so many words."""
    return len(words_in(answer)) <= number


def in_quotes(answer: str, number: int) -> bool:
    """Whether there are at least so many passages in double quotation marks."""
    return len(re.findall(r"[\"“][^\"“”]+[\"”]", answer)) >= number


def in_brackets(answer: str, number: int) -> bool:
    """Whether there are at least so many passages in square brackets."""
    return len(re.findall(r"\[[^\[\]]+\]", answer)) >= number


CHECKS: Final[Mapping[str, Callable[[str, Any], bool]]] = {
    check.__name__: check
    for check in (
        has_word, without_word, begins_with, ends_with, num_sentences, num_items, num_in_row, one_of, is_number,
        in_capitals, in_small_letters, at_most_words, in_quotes, in_brackets,
    )
}  # fmt: skip


def follows(answer: str, check: str, value: Any, about: Sequence[str]) -> bool:
    """Whether an answer passes a check and is about the matter.

    Args:
        answer: the answer.
        check: the name of the check.
        value: what the check takes.
        about: words of which one must occur; none where the check itself names words that must occur.
    """
    found = set(words_in(answer))
    return bool(found) and (not about or not found.isdisjoint(about)) and CHECKS[check](answer, value)
