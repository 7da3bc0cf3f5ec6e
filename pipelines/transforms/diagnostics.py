"""Figures that say what projection did in a step, from numbers that it computes anyway."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.transforms.projector import Measure, Projector

_CLEAR_OF_ROUNDING = 100.0


def gradient_figures(measure: Measure, projector: Projector, objectives: Sequence[str]) -> dict[str, float]:
    """Figures of one gradient projection.

    Returns:
        ``removed``: |Pg| / |g|, the share of the gradient that lies in the reference subspace; ``removed_random``:
        the share that a random subspace of the same dimensions would hold on average (root mean square);
        ``conflict/NAME``: cos(g, b) with each objective's reference gradient b, negative where the step raises that
        reference loss.
    """
    total = measure.squared.sum().sqrt()
    # A group whose tensors are all frozen has neither elements nor rows.
    sizes = torch.tensor(projector.numels, dtype=torch.float64, device=total.device).clamp_min(1)
    random = (measure.squared * projector.ranks / sizes).sum().sqrt()
    lengths = projector.grams.diagonal(dim1=-2, dim2=-1).sum(0).sqrt()
    cosines = _ratio(measure.inner.sum(0), total * lengths)
    figures = {
        "removed": float(_ratio(measure.removed.clamp_min(0).sum().sqrt(), total)),
        "removed_random": float(_ratio(random, total)),
    }
    for name, cosine in zip(objectives, cosines.tolist(), strict=True):
        figures[f"conflict/{name}"] = cosine
    return figures


def leak_figures(
    change: Measure, projector: Projector, objectives: Sequence[str], weights_norm: float
) -> dict[str, float]:
    """``leak/NAME``: signed <b, dtheta> / (|b| |dtheta|) of the optimizer's change, positive if it raises that loss.

    Args:
        change: the measure of the change.
        projector: the projector that holds the rows b.
        objectives: the names of the objectives.
        weights_norm: |theta|. Float32 weights resolve a change to 2^-24 of their own size. A change that is hardly
            larger, as at the end of a cosine schedule, has no reliable direction, and no leak is given.
    """
    change_norm = change.squared.sum().sqrt()
    if float(change_norm) < _CLEAR_OF_ROUNDING * 2.0**-24 * weights_norm:
        return {}
    lengths = projector.grams.diagonal(dim1=-2, dim2=-1).sum(0).sqrt()
    leaks = _ratio(change.inner.sum(0), change_norm * lengths)
    return {f"leak/{name}": leak for name, leak in zip(objectives, leaks.tolist(), strict=True)}


def removed_by_group(measure: Measure) -> list[float]:
    """The share |P g| / |g| for each group of tensors."""
    return _ratio(measure.removed.clamp_min(0).sqrt(), measure.squared.sqrt()).tolist()


def principal_angles(old: Tensor, new: Tensor, cross: Tensor) -> Tensor:
    """Cosines of the principal angles between two row spans, from Gram matrices alone.

    Args:
        old: ``[G, k, k]`` float64, the factor of the pseudo-inverse of the old rows' Gram matrix (``inverse_factor``).
        new: ``[G, k, k]`` float64, the same factor for the new rows.
        cross: ``[G, k, k]`` float64 inner products, old rows by new rows.

    Returns:
        ``[G, k]`` float64, descending; zeros where a span has fewer dimensions.
    """
    return torch.linalg.svdvals(old.transpose(-1, -2) @ cross @ new).clamp(0, 1)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator.clamp_min(1e-300), torch.zeros_like(numerator))
