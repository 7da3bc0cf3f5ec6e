"""TIES: trim each change, elect a sign for each place, average what agrees with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def on_dense(terms: Sequence[tuple[float, Tensor]], density: float) -> Tensor:
    """Trim each change to its largest elements, elect a sign for each place, average what agrees with it.

    Args:
        terms: weights (not negative) and float32 tensors of one shape, which are overwritten.
        density: share of elements that trimming keeps, above 0, at most 1. Equal magnitudes at the limit all stay.

    Returns:
        ``sum w_i D_i [sign agrees] / sum w_i [sign agrees]``.

    Source:
        arXiv 2306.01708, section 4. Differs: weights, in the election and in the average; equal ones are the paper's.
    """
    for _, change in terms:
        _trim(change, density)
    elected = torch.zeros_like(terms[0][1])
    for weight, change in terms:
        elected.add_(change, alpha=weight)
    elected.sign_()
    total, weights = torch.zeros_like(elected), torch.zeros_like(elected)
    for weight, change in terms:
        agrees = change.sign() == elected
        total.add_(change.mul_(agrees), alpha=weight)
        weights.add_(agrees, alpha=weight)
    return total.div_(weights).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def _trim(change: Tensor, density: float) -> None:
    keep = max(1, round(density * change.numel()))
    if keep == change.numel():
        return
    magnitudes = change.abs()
    limit = magnitudes.reshape(-1).kthvalue(change.numel() - keep + 1).values
    change.mul_(magnitudes >= limit)
