"""Which tokens of a rejected answer count in DPO: those that have become least likely against the starting model.

Source:
    ALLO, arXiv 2406.12606, RUCAIBox/ALLO@b3bdebb train/train_improving.py. Ours differs by taking a share of each
    answer's own tokens; ``padded_width`` gives the published rule, in which how many tokens count depends on what else
    is in the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def least_likely_tokens(ratios: Tensor, inside: Tensor, share: float, *, padded_width: bool = False) -> Tensor:
    """The tokens of each answer whose log-ratio is at most the k-th smallest of the answer; ties are all in.

    Args:
        ratios: ``[B, L]`` float, log-probability of each token under the model minus that under the starting model.
        inside: ``[B, L]`` bool, whether a position is a token of the answer; others never count.
        share: between 0 and 1. k is ``share`` times the number of the answer's tokens, rounded half to even, and at
            least 1.
        padded_width: the published rule instead: k is ``share`` times L, rounded down, prompt and padding included, and
            tokens with a ratio of exactly 0 come last.

    Returns:
        ``[B, L]`` bool.
    """
    lengths = inside.sum(1)
    if padded_width:
        # The published code looks among all positions, and what is no token of the answer comes last there too.
        ratios = ratios.masked_fill(ratios == 0, math.inf)
        k = torch.full_like(lengths, max(1, int(share * ratios.shape[1])))
    else:
        k = (share * lengths.double()).round().long().clamp(min=1)
    ascending = ratios.masked_fill(~inside, math.inf).sort(dim=1).values
    threshold = ascending.gather(1, (k - 1).unsqueeze(1))
    return (ratios <= threshold) & inside
