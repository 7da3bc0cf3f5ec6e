"""DARE: random elements of each change are dropped, the rest is scaled up, and the results are added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.merging.factors import Factors, weighted_sum


def on_factors(
    terms: Sequence[tuple[float, Factors]], scaling: float, dtype: torch.dtype, density: float
) -> Factors | None:
    """The plain weighted sum where nothing is dropped (a density of 1); None otherwise."""
    return weighted_sum(terms, scaling, dtype) if density == 1 else None


def on_dense(terms: Sequence[tuple[float, Tensor]], density: float, generator: torch.Generator) -> Tensor:
    """``sum w_i M_i D_i / density`` with random masks ``M_i`` that keep each element with probability ``density``.

    Args:
        terms: weights and float32 tensors of one shape, which are overwritten.
        density: the share of elements that is kept, above 0, at most 1; at 1 this is the plain weighted sum.
        generator: the random generator that draws the masks.

    Source:
        arXiv 2311.03099, equation 2.
    """
    total = torch.zeros_like(terms[0][1])
    for weight, change in terms:
        if density < 1:
            change.mul_(torch.rand(change.shape, generator=generator) < density)
        total.add_(change, alpha=weight / density)
    return total
