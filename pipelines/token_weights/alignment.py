"""Which tokens of an answer differ from those of another one, by an alignment with as few edits as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


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
    costs = _costs(here, there)
    flags = [True] * len(here)
    i, j = len(here), len(there)
    while i > 0 and j > 0:
        step = int(here[i - 1] != there[j - 1])
        if costs[i, j] == costs[i - 1, j - 1] + step:
            flags[i - 1] = bool(step)
            i, j = i - 1, j - 1
        elif costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return flags


def _costs(here: npt.NDArray[np.int64], there: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """``[n + 1, m + 1]``: the distance of the first i tokens from the first j; one row at a time."""
    places = np.arange(len(there) + 1, dtype=np.int32)
    costs = np.empty((len(here) + 1, len(there) + 1), dtype=np.int32)
    costs[0] = places
    for i, token in enumerate(here):
        before = costs[i]
        best = np.empty_like(before)
        best[0] = i + 1
        np.minimum(before[:-1] + (there != token), before[1:] + 1, out=best[1:])
        # An insertion adds 1 to the cost of the place before: a running minimum once the places are subtracted.
        costs[i + 1] = np.minimum.accumulate(best - places) + places
    return costs
