"""SafeLoRA: the fine-tuned change projected on the direction of alignment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.merging.criterion import COLUMNS, Projection, project
from pipelines.merging.factors import Factors


def on_factors(
    terms: Sequence[tuple[float, Factors]],
    scaling: float,
    dtype: torch.dtype,
    direction: Projection,
) -> Factors:
    """``C D`` as ``(C B) A``: ``A`` and the scaling stay.

    Args:
        terms: the fine-tuned change alone, not modified; its weight does not count.
        scaling: the scaling of the fine-tuned change.
        dtype: the dtype of the result's factors.
        direction: ``C B`` of that change.

    Source:
        arXiv 2405.16833, equation 1.
    """
    [(_, finetuned)] = terms
    return Factors(finetuned.A.to(dtype), direction.CB.to(dtype), scaling)


def on_dense(terms: Sequence[tuple[float, Tensor]], direction: Sequence[Tensor]) -> Tensor:
    """``C D``, some columns of it at a time.

    Args:
        terms: the fine-tuned change alone, ``[out, in]`` float32, which is overwritten with the result.
        direction: float32 rows of ``V``, in order.
    """
    [(_, change)] = terms
    for start in range(0, change.shape[1], COLUMNS):
        part = change[:, start : start + COLUMNS]
        part.copy_(project(direction, part.contiguous()).CB)
    return change
