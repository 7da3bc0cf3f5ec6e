"""The mathematics of orthogonal projection on flat tensors. Knows no files, ranks or configurations.

Legend: T tensors, k reference objectives (rows), n elements of one tensor or of the part of it that is present.

Precision: rows are used as stored; their Gram matrix is that of the stored values, accumulated in float64; dot products
are formed in float32 over runs of 128 elements and summed in float64 over the runs (plain float32 loses 3e-4 at 8
million elements, a matrix product within chunks of 64 k still 2e-6). Nearly dependent rows have large coefficients of
opposite sign, whose rounding would outweigh the result: for those, and only those, products and differences are formed
in float64.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CHUNK = 1 << 16
# Float32 sums of this many products err by no more than the rounding of the products; longer sums err visibly.
RUN = 128
# Directions weaker than this, relative to the strongest and after rows are scaled to unit length, count as zero. Then a
# row keeps at most sqrt(1e-12) = 1e-6 of its overlap with the projected vector, whatever the vector is.
RTOL = 1e-12
# Projection leaves tensors of so few elements little but rounding noise, which Adam then scales up to full steps.
MIN_ELEMENTS = 9


def is_projectable(numel: int, num_rows: int) -> bool:
    """Whether a tensor of ``numel`` elements is projected off ``num_rows`` rows; the smallest tensors are not."""
    return numel >= MIN_ELEMENTS and numel > num_rows


def dots(rows: Tensor, vector: Tensor, *, minus: Tensor | None = None, exact: bool = False) -> Tensor:
    """Inner products of every row with a vector, or with a difference of two that is never held as a whole.

    Args:
        rows: ``[k, n]`` float32 or bfloat16.
        vector: ``[n]`` any float dtype.
        minus: ``[n]`` in the vector's dtype, what is taken off the vector first; None for nothing.
        exact: multiply in float64, for rows that are nearly dependent.

    Returns:
        ``[k]`` float64, on the device of ``rows``.
    """
    k, n = rows.shape
    dtype = torch.float64 if exact else torch.float32
    total = torch.zeros(k, dtype=torch.float64, device=rows.device)
    whole = n - n % RUN
    # Every piece costs a dozen calls; where no products are written down, the piece need not stay in the cache.
    size = _chunk(rows, 64 * CHUNK if minus is None and rows.dtype == dtype and _at_once(rows) else 4 * CHUNK)
    # Written again and again: on a processor, fresh memory costs more than what is computed into it.
    spare = None if minus is None else vector.new_empty(min(size, n))
    for start in range(0, whole, size):
        end = min(start + size, whole)
        part, piece = rows[:, start:end].to(dtype), _piece(vector, minus, start, end, spare).to(dtype)
        total += _over_runs(part.unflatten(1, (-1, RUN)), piece.unflatten(0, (-1, RUN))).sum(1, dtype=torch.float64)
    if whole < n:
        rest = _piece(vector, minus, whole, n, spare).to(dtype)
        total += (rows[:, whole:].to(dtype) * rest).sum(1, dtype=torch.float64)
    return total


def _over_runs(rows: Tensor, vector: Tensor) -> Tensor:
    """Inner products ``[k, m]`` of ``[k, m, RUN]`` with ``[m, RUN]``, in their dtype."""
    if not _at_once(rows):
        return torch.linalg.vecdot(rows, vector)
    factors, vectors = rows.detach().numpy(), vector.detach().numpy()
    found = np.empty(factors.shape[:2], factors.dtype)
    step = 4 * CHUNK // RUN
    # One row after the other: what all of them are multiplied with is to stay in the cache.
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        np.vecdot(factors[:, part], vectors[part], out=found[:, part])
    return torch.from_numpy(found)


def _at_once(rows: Tensor) -> bool:
    # torch writes down all products before it sums them. NumPy does not, but has a single thread.
    return rows.device.type == "cpu" and rows.dtype == torch.float32 and torch.get_num_threads() == 1


def _piece(vector: Tensor, minus: Tensor | None, start: int, end: int, spare: Tensor | None) -> Tensor:
    if minus is None or spare is None:
        return vector[start:end]
    return torch.sub(vector[start:end], minus[start:end], out=spare[: end - start])


def _chunk(tensor: Tensor, on_cpu: int = CHUNK) -> int:
    # On a CPU, intermediate results are to stay in the cache; on a GPU, many kernel launches would cost more than that.
    return on_cpu if tensor.device.type == "cpu" else 64 * CHUNK


def squared_norm(vector: Tensor, *, minus: Tensor | None = None) -> Tensor:
    """Sum of squares of ``vector`` (``[n]``, any float dtype), less ``minus`` if given, as a float64 scalar."""
    if minus is None:
        return dots(vector.reshape(1, -1), vector.reshape(-1))[0]
    size = _chunk(vector, 4 * CHUNK)
    total = torch.zeros((), dtype=torch.float64, device=vector.device)
    for part, off in zip(vector.split(size), minus.split(size), strict=True):
        total += squared_norm(part - off)
    return total


def gram(rows: Tensor) -> Tensor:
    """Gram matrix ``rows @ rows.T`` of ``[k, n]`` rows as stored; ``[k, k]`` float64, accumulated in float64."""
    k, n = rows.shape
    total = torch.zeros(k, k, dtype=torch.float64, device=rows.device)
    for start in range(0, n, 16 * CHUNK):
        chunk = rows[:, start : start + 16 * CHUNK].double()
        total += chunk @ chunk.T
    return total


def inverse_factor(grams: Tensor, rtol: float = RTOL) -> Tensor:
    """Factor F of the pseudo-inverse ``K^+ = F F^T`` of Gram matrices, insensitive to the rows' lengths.

    Kept factored because with nearly dependent rows the product ``K^+ d`` cancels what ``F (F^T d)`` does not. Zero and
    repeated rows are allowed; where the rows span fewer than k dimensions, the remaining columns are zero.

    Args:
        grams: ``[..., k, k]`` float64, symmetric positive semi-definite.
        rtol: eigenvalues of the correlation matrix below ``rtol`` times the largest count as zero.

    Returns:
        ``[..., k, k]`` float64.
    """
    lengths = grams.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    tiny = torch.finfo(torch.float64).tiny
    scale = torch.where(lengths > 0, 1 / lengths.clamp_min(tiny), torch.zeros_like(lengths))
    values, vectors = torch.linalg.eigh(grams * scale[..., :, None] * scale[..., None, :])
    keep = values > rtol * values[..., -1:].clamp_min(tiny)
    roots = torch.where(keep, torch.where(keep, values, torch.ones_like(values)).rsqrt(), torch.zeros_like(values))
    return scale[..., :, None] * vectors * roots[..., None, :]


def coefficients(factors: Tensor, inner: Tensor) -> Tensor:
    """Coefficients of the rows in a vector's projection on their span.

    Args:
        factors: ``[..., k, k]`` float64, from :func:`inverse_factor`.
        inner: ``[..., k]`` float64, inner products of the rows with the vector.

    Returns:
        ``[..., k]`` float64. The projection's squared length is ``(coefficients * inner).sum(-1)``.
    """
    return (factors @ (factors.transpose(-1, -2) @ inner[..., None]))[..., 0]


def ranks(factors: Tensor) -> Tensor:
    """Dimension of the rows' span, ``[...]`` int64, for each ``[..., k, k]`` factor."""
    return (factors.abs().amax(-2) > 0).sum(-1)


def needs_exact(grams: Tensor, factors: Tensor) -> Tensor:
    """Whether rows are so nearly dependent that float32 products would leave more than rounding noise.

    Args:
        grams: ``[..., k, k]`` float64.
        factors: ``[..., k, k]`` float64, from :func:`inverse_factor`.

    Returns:
        ``[...]`` bool: some row lies within about 0.1 of the span of the others, relative to its length.
    """
    squared_lengths = grams.diagonal(dim1=-2, dim2=-1)
    return (squared_lengths * factors.square().sum(-1)).amax(-1) > 1e2


def subtract_(vector: Tensor, rows: Tensor, weights: Tensor, *, once: bool = False, exact: bool = False) -> None:
    """Subtract ``rows.T @ weights`` from ``vector`` in place.

    Args:
        vector: ``[n]`` any float dtype; changed in place.
        rows: ``[k, n]`` float32 or bfloat16.
        weights: ``[k]`` float64.
        once: round the vector once, not with every row: for one that is much larger than what it loses.
        exact: compute in float64 rather than float32, for rows that are nearly dependent.
    """
    dtype = torch.float64 if exact else torch.float32
    negative = -weights.to(vector.device, dtype)
    if once:
        size = _chunk(rows, 4 * CHUNK)
        spare = vector.new_empty(min(size, len(vector)), dtype=dtype)
        for part, piece in zip(rows.split(size, dim=1), vector.split(size), strict=True):
            # The sum is formed in the wider of both types.
            piece.add_(torch.mv(part.to(dtype).T, negative, out=spare[: len(piece)]))
        return
    if vector.dtype == rows.dtype == dtype:
        vector.addmv_(rows.T, negative)
        return
    size = _chunk(rows)
    for part, piece in zip(rows.split(size, dim=1), vector.split(size), strict=True):
        piece.copy_(torch.addmv(piece.to(dtype), part.to(dtype).T, negative))


def project_out(vector: Tensor, rows: Tensor, strength: float = 1.0) -> Tensor:
    """Remove from a vector its component in the row span.

    Args:
        vector: ``[n]`` any float dtype; not modified.
        rows: ``[k, n]`` float32 or bfloat16; need not be orthogonal, independent or non-zero.
        strength: share of the component that is removed.

    Returns:
        ``[n]`` in ``vector.dtype``.

    Source:
        arXiv 2602.07892. Differs from SunGL001/OGPSA: k rows with their Gram matrix, no epsilon.
    """
    grams = gram(rows)
    factor = inverse_factor(grams)
    exact = bool(needs_exact(grams, factor))
    result = vector.clone()
    subtract_(result, rows, strength * coefficients(factor, dots(rows, vector, exact=exact)), exact=exact)
    return result
