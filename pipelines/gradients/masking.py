"""Masks on flat tensors: frozen elements keep their bits. Knows no files, ranks or configurations.

Legend: n elements of a tensor or of the part of it that is present; ``frozen`` is ``[n]`` bool, True where an element
must not move.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 20
_PRIME = 1_000_003
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def zero_frozen_(vector: Tensor, frozen: Tensor) -> None:
    """Set the frozen elements of ``[n]``, or of all rows of ``[k, n]``, to +0 in place, whatever they are.

    A product with 0 would leave -0 and NaN, and -0 turns the sign of a weight that is -0.
    """
    vector.masked_fill_(frozen, 0)


def restore_(weights: Tensor, before: Tensor, frozen: Tensor) -> None:
    """Put the frozen elements of ``weights`` back to those of ``before``, bit for bit; both ``[n]`` of one dtype."""
    torch.where(frozen, before, weights, out=weights)


def bits(tensor: Tensor) -> Tensor:
    """The bit patterns of a floating tensor, as integers of the same size."""
    return tensor.view(_INTEGERS[tensor.element_size()])


def num_differing(one: Tensor, other: Tensor) -> int:
    """How many elements of two tensors of one dtype differ in a bit; 0 and -0 do."""
    return int((bits(one) != bits(other)).sum())


def checksum(weights: Tensor, frozen: Tensor, start: int) -> Tensor:
    """Two sums over the bits of the frozen elements, which add up over parts, however a tensor is cut.

    Args:
        weights: ``[n]`` any float dtype.
        frozen: ``[n]`` bool.
        start: the place of the first element in the whole tensor.

    Returns:
        ``[2]`` int64: the sum of the patterns, and of the patterns times their places. Sums that wrap around are the
        same in any order.
    """
    total = torch.zeros(2, dtype=torch.int64, device=weights.device)
    for begin in range(0, weights.numel(), _CHUNK):
        part = bits(weights[begin : begin + _CHUNK]).to(torch.int64)
        part = part.masked_fill_(~frozen[begin : begin + _CHUNK], 0)
        first = start + begin
        places = torch.arange(first, first + part.numel(), device=part.device) % _PRIME + 1
        total[0] += part.sum()
        total[1] += (part * places).sum()
    return total
