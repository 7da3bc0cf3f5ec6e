"""The weighted sum of the changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.merging.factors import Factors, weighted_sum


def on_factors(terms: Sequence[tuple[float, Factors]], scaling: float, dtype: torch.dtype) -> Factors:
    """``sum w_i D_i``, exactly; see :func:`pipelines.merging.factors.weighted_sum`."""
    return weighted_sum(terms, scaling, dtype)


def on_dense(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """``sum w_i D_i``.

    Args:
        terms: weights and float32 tensors of one shape; none is modified.
    """
    total = torch.zeros_like(terms[0][1])
    for weight, change in terms:
        total.add_(change, alpha=weight)
    return total


def on_weights(finetuned: Tensor, safe: Tensor, weights: tuple[float, float]) -> Tensor:
    """``w_1 W_finetuned + w_2 W_safe`` in float32, for weights that sum to 1.

    Written as an interpolation, which gives both ends, and what is equal, to the last digit.
    """
    return torch.lerp(finetuned.float(), safe.float(), weights[1])
