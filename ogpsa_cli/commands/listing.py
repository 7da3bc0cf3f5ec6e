"""Lists of which a word chooses a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from data_registry.core.errors import InputError

EntryT = TypeVar("EntryT")


def having_word(entries: Iterable[EntryT], word: str | None, text: Callable[[EntryT], str]) -> list[EntryT]:
    """The entries whose text has a word in it, whatever its case; all of them without a word.

    Args:
        entries: what there is.
        word: the word, or a part of one; None chooses all.
        text: gives the text of an entry.

    Raises:
        InputError: no entry has the word.
    """
    found = [entry for entry in entries if word is None or word.lower() in text(entry).lower()]
    if not found:
        raise InputError(f"nothing in the list has '{word}'", fix="give a shorter word, or none to see the whole list")
    return found
