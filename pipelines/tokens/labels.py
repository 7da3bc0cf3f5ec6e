"""Labels: for every token of a row the token itself where it is trained, and a mark where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

IGNORED: Final = -100
"""The label of a token that is not trained; torch's losses leave it out by default."""


def num_trained(labels: Sequence[int]) -> int:
    """The number of labelled tokens that have a token before them, which is what a loss sees."""
    return sum(label != IGNORED for label in labels[1:])
