"""How far a change of a weight agrees with the direction of alignment: cos(C D, D) without forming C or D.

``V = W_aligned - W_unaligned`` is ``[out, in]``, ``C = V V^T / |V|_F``, and ``D`` is the change by fine-tuning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.merging.factors import Factors, inner

COLUMNS = 512
"""Columns of a dense change that are projected at a time."""


@dataclass(frozen=True)
class Projection:
    """What a pass over ``V`` gives.

    Attributes:
        CB: ``[out, r]`` float32, ``C B``.
        v_norm: ``|V|_F``.
    """

    CB: Tensor
    v_norm: float


def project(blocks: Iterable[Tensor], B: Tensor, *, transposed: bool = False) -> Projection:
    """``C B`` as ``V (V^T B) / |V|_F``, from the rows of ``V``: O(out in r) instead of O(out^2 in).

    Args:
        blocks: float32 rows of the stored difference, in order; together ``V``, or ``V^T`` if ``transposed``. They
            are kept until the result is there, so that memory is that of one ``V``; of a transposed one, none is.
        B: ``[out, r]``.
        transposed: the weight is stored as ``[in, out]`` (embeddings, Conv1D).

    Returns:
        ``C B``, zero where ``V`` is; the order of operations depends on the shapes of the blocks alone.

    Source:
        arXiv 2405.16833, equation 1; published code forms ``C``.
    """
    # Products with the narrow factor on the left and lying down are up to seven times faster than the obvious ones.
    B_rows = B.float().T.contiguous()
    squared = 0.0
    if transposed:
        E_rows = torch.zeros_like(B_rows)
        for block in blocks:
            squared += _squared(block)
            E_rows += (B_rows @ block.T) @ block
        return _scaled(E_rows.T.contiguous(), squared)
    kept: list[Tensor] = []
    T_rows: Tensor | None = None
    start = 0
    for block in blocks:
        squared += _squared(block)
        part = B_rows[:, start : start + block.shape[0]] @ block
        T_rows = part if T_rows is None else T_rows.add_(part)
        start += block.shape[0]
        kept.append(block)
    assert T_rows is not None
    assert start == B.shape[0]
    return _scaled(torch.cat([T_rows @ block.T for block in kept], dim=1).T.contiguous(), squared)


def _squared(block: Tensor) -> float:
    flat = block.reshape(-1)
    return float(torch.dot(flat, flat))


def _scaled(E: Tensor, squared: float) -> Projection:
    v_norm = squared**0.5
    return Projection(E.div_(v_norm) if v_norm > 0 else E, v_norm)


def cosine(factors: Factors, CB: Tensor) -> float:
    """``cos(C D, D)`` of a low-rank change ``D = B A``, from r x r Gram matrices in float64.

    Args:
        factors: the factors of ``D``; the cosine does not depend on its scaling.
        CB: ``[out, r]`` from :func:`project`.

    Returns:
        From 0 to 1 (``C`` is positive semi-definite). 0 where ``C D`` or ``D`` vanishes, as in the published code.
    """
    projected = Factors(factors.A, CB, factors.scaling)
    return _ratio(inner(projected, factors), inner(projected, projected), inner(factors, factors))


def _ratio(cross: float, projected: float, change: float) -> float:
    product = max(projected, 0.0) ** 0.5 * max(change, 0.0) ** 0.5
    # Rounding may leave the last digit on the wrong side.
    return min(max(cross / product, 0.0), 1.0) if product > 0 else 0.0


def project_dense(V: Sequence[Tensor], D: Tensor) -> tuple[float, float]:
    """``cos(C D, D)`` and ``|V|_F`` of a dense change, some columns of it at a time.

    Args:
        V: float32 rows of ``V``, in order.
        D: ``[out, in]`` float32.

    Returns:
        The cosine, and the norm of ``V``.
    """
    cross = projected = change = 0.0
    v_norm = 0.0
    for start in range(0, D.shape[1], COLUMNS):
        part = D[:, start : start + COLUMNS].contiguous()
        found = project(V, part)
        v_norm = found.v_norm
        cross += _dot(found.CB, part)
        projected += _dot(found.CB, found.CB)
        change += _dot(part, part)
    return _ratio(cross, projected, change), v_norm


def _dot(left: Tensor, right: Tensor) -> float:
    return float((left.double() * right.double()).sum())


def threshold_for(rhos: Sequence[float], fraction: float) -> float:
    """The threshold below which the given share of the layers lies, the least aligned ones.

    Args:
        rhos: the rho of every layer; at least one.
        fraction: from 0 to 1; rounded to whole layers.

    Returns:
        Half way between the last layer that is below and the next. Of layers with equal cosines none is below.
    """
    ordered = sorted(rhos)
    count = round(fraction * len(ordered))
    if count == 0:
        return -1.0
    if count == len(ordered):
        # Cosines are at most 1, and "below" is strict.
        return min(1.0, ordered[-1]) + 1e-6
    return (ordered[count - 1] + ordered[count]) / 2
