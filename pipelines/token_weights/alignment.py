"""Which tokens of an answer differ from those of another one, by an alignment with as few edits as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

_DIAGONAL: Final = 0
_DELETION: Final = 1
_INSERTION: Final = 2


def edited(ids: Sequence[int], other: Sequence[int]) -> list[bool]:
    """For each token of ``ids`` whether it is not kept in an alignment with ``other`` of least Levenshtein distance.

    Substitution, insertion and deletion cost 1 each. Of several such alignments the one is taken that, from the end
    on, goes along the diagonal wherever that is no dearer, and otherwise deletes from ``ids`` before it inserts.

    Args:
        ids: ``n`` tokens.
        other: ``m`` tokens.

    Returns:
        ``n`` flags: True for a token that is substituted or deleted, False for one that is kept.
    """
    here, there = np.asarray(ids, dtype=np.int64), np.asarray(other, dtype=np.int64)
    steps = _steps(here, there)
    flags = [True] * len(here)
    i, j = len(here), len(there)
    while i > 0 and j > 0:
        step = steps[i - 1, j - 1]
        if step == _DIAGONAL:
            flags[i - 1] = bool(here[i - 1] != there[j - 1])
        i -= int(step != _INSERTION)
        j -= int(step != _DELETION)
    return flags


def _steps(here: npt.NDArray[np.int64], there: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """``[n, m]``: the last step of the alignment of the first i + 1 tokens with the first j + 1; one byte each."""
    places = np.arange(len(there) + 1, dtype=np.int32)
    steps = np.empty((len(here), len(there)), dtype=np.uint8)
    before = places
    for i, token in enumerate(here):
        diagonal, deletion = before[:-1] + (there != token), before[1:] + 1
        best = np.concatenate([np.array([i + 1], dtype=np.int32), np.minimum(diagonal, deletion)])
        # An insertion adds 1 to the cost of the place before: a running minimum once the places are subtracted.
        costs = np.minimum.accumulate(best - places) + places
        steps[i] = np.where(diagonal == costs[1:], _DIAGONAL, np.where(deletion == costs[1:], _DELETION, _INSERTION))
        before = costs
    return steps
