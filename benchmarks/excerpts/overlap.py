"""Whether two requests are nearly the same, by the words that they share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

ALIKE: Final = 0.7
"""Requests that share more than this part of all their words are taken for the same."""


def words_of(text: str) -> frozenset[str]:
    """The words of a request, without case and marks."""
    return frozenset(re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("\u2019", "")))


def alike(text: str, others: Iterable[frozenset[str]]) -> bool:
    """Whether a request is nearly one of others."""
    own = words_of(text)
    return any(len(own & other) > ALIKE * len(own | other) for other in others)
