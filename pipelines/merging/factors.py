"""Low-rank changes ``scaling * B A`` of a weight: norms, exact sums, truncation and errors without forming them.

Names carry shapes: ``A`` is ``[r, in]``, ``B`` is ``[out, r]``, as PEFT stores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """A low-rank change of a weight.

    Attributes:
        A: ``[r, in]``, any float dtype.
        B: ``[out, r]``, the same dtype.
        scaling: what ``B A`` is multiplied with.
    """

    A: Tensor
    B: Tensor
    scaling: float

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.A.shape[0]

    def rows(self, start: int, stop: int) -> Tensor:
        """``[stop - start, in]`` float32: these rows of the change."""
        return (self.B[start:stop].float() @ self.A.float()).mul_(self.scaling)

    def dense(self) -> Tensor:
        """``[out, in]`` float32: the whole change. For methods that work element by element."""
        return self.rows(0, self.B.shape[0])


def inner(left: Factors, right: Factors) -> float:
    """The inner product ``<left, right>`` of two changes of the same shape, from their r x r Gram matrices.

    Accumulated in float64; costs O((out + in) r^2).
    """
    gram_B = left.B.double().T @ right.B.double()
    gram_A = left.A.double() @ right.A.double().T
    return left.scaling * right.scaling * float((gram_B * gram_A).sum())


def norm(factors: Factors) -> float:
    """The Frobenius norm of a change."""
    return max(inner(factors, factors), 0.0) ** 0.5


def same(left: Factors, right: Factors) -> bool:
    """Whether two changes have the same factors, bit for bit, and the same scaling."""
    return left.scaling == right.scaling and torch.equal(left.A, right.A) and torch.equal(left.B, right.B)


def weighted_sum(terms: Sequence[tuple[float, Factors]], scaling: float, dtype: torch.dtype) -> Factors:
    """``sum w_i D_i``, exactly: factors are put side by side, so that the rank is the sum of the ranks.

    What has no weight is left out, equal changes are counted once, and a single change of weight 1 is returned as it
    is, bit for bit, where ``dtype`` holds its values.

    Args:
        terms: weights and changes of the same shape; none is modified.
        scaling: the scaling of the result; not zero.
        dtype: the dtype of the result's factors.

    Returns:
        The sum. Its ``B`` was scaled in float32 (float64 for factors in float64) and rounded once to ``dtype``.

    Raises:
        ValueError: there is no term with a weight.

    Source:
        Differs from PEFT's ``linear``, which adds ``sqrt(w) A`` and ``sqrt(w) B`` and so gets cross terms
        ``B_1 A_2 + B_2 A_1``.
    """
    unique: list[tuple[float, Factors]] = []
    for weight, factors in terms:
        at = next((index for index, (_, known) in enumerate(unique) if same(known, factors)), None)
        if at is None:
            unique.append((weight, factors))
        else:
            unique[at] = (unique[at][0] + weight, factors)
    unique = [(weight, factors) for weight, factors in unique if weight != 0]
    if not unique:
        raise ValueError("a sum needs a term with a weight")
    B = torch.cat([_scaled(factors.B, weight * (factors.scaling / scaling)) for weight, factors in unique], dim=1)
    A = torch.cat([factors.A for _, factors in unique], dim=0)
    return Factors(A.to(dtype), B.to(dtype), scaling)


def _scaled(B: Tensor, factor: float) -> Tensor:
    if factor == 1.0:
        return B
    return B.to(torch.promote_types(B.dtype, torch.float32)) * factor


def truncate(factors: Factors, rank: int, dtype: torch.dtype) -> Factors:
    """The nearest change of at most ``rank``, in the Frobenius norm, by QR of the factors; O((out + in) r^2).

    Args:
        factors: not modified.
        rank: at least 1.
        dtype: the dtype of the result's factors.

    Returns:
        Factors of rank ``rank`` with the singular values shared between both; ``factors`` itself where its rank is
        not above ``rank``.
    """
    if factors.rank <= rank:
        return Factors(factors.A.to(dtype), factors.B.to(dtype), factors.scaling)
    Q_B, R_B = torch.linalg.qr(factors.B.double())
    Q_A, R_A = torch.linalg.qr(factors.A.double().T)
    U, S, Vh = torch.linalg.svd(R_B @ R_A.T)
    root = S[:rank].sqrt()
    return Factors((root[:, None] * (Vh[:rank] @ Q_A.T)).to(dtype), ((Q_B @ U[:, :rank]) * root).to(dtype),
                   factors.scaling)  # fmt: skip


def relative_error(stored: Factors, exact: Factors) -> float:
    """``|stored - exact| / |exact|`` from Gram matrices; 0 where both vanish.

    Differences below about 1e-8 drown in the cancellation and read as 0.
    """
    if same(stored, exact):
        return 0.0
    of_exact = inner(exact, exact)
    squared = inner(stored, stored) - 2 * inner(stored, exact) + of_exact
    if of_exact <= 0:
        return 0.0 if squared <= 0 else float("inf")
    # Written so that NaN, from factors that overflowed, is not taken for 0.
    return 0.0 if squared <= 1e-15 * of_exact else (squared / of_exact) ** 0.5


def low_rank(dense: Tensor, rank: int, scaling: float, dtype: torch.dtype, generator: torch.Generator) -> Factors:
    """A change of at most ``rank`` near a dense one, by a randomised range finder with two power iterations.

    Args:
        dense: ``[out, in]`` float32, not modified.
        rank: at least 1.
        scaling: the scaling of the result.
        dtype: the dtype of the result's factors.
        generator: the generator of the random test matrix; the same state gives the same result.

    Source:
        Halko, Martinsson, Tropp 2011, algorithm 4.4, with 8 columns more than needed.
    """
    rank = min(rank, *dense.shape)
    test = torch.randn(dense.shape[1], min(rank + 8, *dense.shape), generator=generator)
    Q, _ = torch.linalg.qr(dense @ test)
    for _ in range(2):
        Q, _ = torch.linalg.qr(dense.T @ Q)
        Q, _ = torch.linalg.qr(dense @ Q)
    U, S, Vh = torch.linalg.svd((Q.T @ dense).double(), full_matrices=False)
    root = (S[:rank] / scaling).sqrt()
    B = (Q.double() @ U[:, :rank]) * root
    return Factors((root[:, None] * Vh[:rank]).to(dtype), B.to(dtype), scaling)
