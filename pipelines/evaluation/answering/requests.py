"""What a backend is asked for: a prompt in tokens, with the room and the seed of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """A prompt to be continued.

    Attributes:
        ids: its tokens, at least one.
        max_new_tokens: the longest answer, in tokens, at least 1.
        seed: the seed of sampling.
        number: what the caller knows it by.
    """

    ids: Sequence[int]
    max_new_tokens: int
    seed: int = 0
    number: int = 0
