"""Maps of scores to weights: pure functions on the scores of one answer."""

from __future__ import annotations

import numpy as np

from pipelines.token_weights.storage import Numbers

_MIDDLE, _MOST = np.float32(0.5), np.float32(0.1)


def below(scores: Numbers, threshold: float) -> Numbers:
    """1 for scores below the threshold, 0 for others."""
    return (scores < np.float32(threshold)).astype(np.float32)


def probability(probabilities: Numbers) -> Numbers:
    """The probabilities themselves.

    Source:
        RUCAIBox/ALLO@b3bdebb, whose published idea is the contrary: the tokens count that a rewriter would
        change.
    """
    return probabilities.astype(np.float32)


def complement(probabilities: Numbers) -> Numbers:
    """1 minus the probabilities."""
    return np.float32(1) - probabilities


def clip(probabilities: Numbers) -> Numbers:
    """0.5 minus the probabilities, within 0 and 0.1.

    Source:
        arXiv 2401.06081: the size of the reward of wrong answers' tokens.
    """
    return np.clip(_MIDDLE - probabilities, np.float32(0), _MOST)


def top(scores: Numbers, share: float, order: str) -> Numbers:
    """1 for a share of the tokens, at least one, and 0 for others; of equal scores the first count.

    Args:
        scores: the scores of the tokens of one answer.
        share: the share, in (0, 1].
        order: ``most`` for those with the highest scores, ``least`` for those with the lowest.

    Source:
        arXiv 2408.13518.
    """
    number = max(1, round(share * len(scores)))
    places = np.argsort(-scores if order == "most" else scores, kind="stable")[:number]
    weights = np.zeros(len(scores), dtype=np.float32)
    weights[places] = 1
    return weights
