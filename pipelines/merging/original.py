"""The arithmetic of the published scripts, step by step, for comparison: forms C and D, adds factors.

Source: aladinD/SafeMERGE@6724444 and IBM/SafeLoRA@d81fda1, whose models and adapters are float32 in memory (the
default of the libraries they name). Written anew from what they compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipelines.merging.factors import Factors

_VANISHING = 1e-9
_DECIMALS = 5


def projector(V: Tensor) -> Tensor:
    """``C = V V^T / |V|_F``, ``[out, out]`` float32; zero where ``V`` vanishes."""
    v_norm = torch.norm(V, p="fro")
    if v_norm < _VANISHING:
        return torch.zeros(V.shape[0], V.shape[0])
    return torch.mm(V, V.t()) / v_norm


def rounded_cosine(C: Tensor, factors: Factors) -> float:
    """cos((C B) A, B A) of the unscaled factors in float32, rounded to five decimals."""
    A, B = factors.A.float(), factors.B.float()
    projected = torch.mm(torch.mm(C, B), A)
    change = torch.mm(B, A)
    cosine = torch.nn.functional.cosine_similarity(projected.view(1, -1), change.view(1, -1), dim=1).item()
    return round(cosine, _DECIMALS)


def sum_of_factors(terms: Sequence[tuple[float, Factors]], scaling: float = 1.0) -> Factors:
    """``A = sum sqrt(w_i s_i) A_i`` and ``B`` likewise, in float32: PEFT's ``linear``.

    It is not the weighted sum of the changes: it has the cross terms ``B_i A_j``.

    Args:
        terms: weights (not negative) and changes of one rank, zero weights included.
        scaling: the scaling of the result, from :func:`scaling_of_sum`.
    """
    products = [weight * factors.scaling for weight, factors in terms]
    roots = torch.tensor([math.sqrt(abs(product)) for product in products])
    # An adapter with a negative alpha: the sign goes to one side alone.
    signed = roots * torch.tensor([math.copysign(1.0, product) for product in products])
    A = (torch.stack([factors.A.float() for _, factors in terms]) * signed.view(-1, 1, 1)).sum(dim=0)
    B = (torch.stack([factors.B.float() for _, factors in terms]) * roots.view(-1, 1, 1)).sum(dim=0)
    return Factors(A, B, scaling)


def scaling_of_sum(config: Mapping[str, Any]) -> float:
    """The scaling that PEFT gives to a sum of factors: that of the first adapter's settings with alpha equal to r.

    It is 1 but for rank-stabilised adapters, whose scaling is alpha over the root of r; the sum is then too large by
    that root, as it comes out of ``add_weighted_adapter``.

    Args:
        config: the configuration of the fine-tuned adapter.
    """
    if not config.get("use_rslora"):
        return 1.0
    return math.sqrt(max([config["r"], *(config.get("rank_pattern") or {}).values()]))


def project_factor(C: Tensor, factors: Factors) -> Factors:
    """SafeLoRA's repair: ``B`` becomes ``C B``, ``A`` and the scaling stay; float32."""
    return Factors(factors.A.float(), torch.mm(C, factors.B.float()), factors.scaling)
