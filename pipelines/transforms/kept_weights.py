"""Copies of weights from before a step, in memory that is used again.

On a processor, fresh memory costs several times as much as the copy into it: the system clears each page when it is
first touched, and large pieces go back to it when they are freed. The allocators of accelerators keep what is freed.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

# A copy begins where vector instructions read whole cache lines: 16 numbers of 4 bytes.
_ALIGNED: Final = 16


class KeptWeights:
    """Copies that are needed until :meth:`release`, which gives the place of all of them free.

    Args:
        most: how many elements are held between steps at most; copies beyond are tensors of their own.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Tensor | None = None
        self._used = 0
        self._wanted = 0

    @property
    def num_held(self) -> int:
        """How many elements are held between steps."""
        return 0 if self._held is None else len(self._held)

    def copy(self, weights: Tensor) -> Tensor:
        """A copy of flat weights ``[n]``."""
        if weights.device.type != "cpu" or weights.dtype != torch.float32:
            return weights.clone()
        size = -(-len(weights) // _ALIGNED) * _ALIGNED
        self._wanted += size
        start = self._used
        if self._held is None or start + size > len(self._held):
            return weights.clone()
        self._used += size
        return self._held[start : start + len(weights)].copy_(weights)

    def release(self, *, again: bool) -> None:
        """Say that no copy is needed any more.

        Args:
            again: whether as many will be needed again in the next step, so that it pays to hold their place.
        """
        wanted = min(self._wanted, self._most)
        if again and wanted > self.num_held:
            self._held = torch.empty(wanted)
        self._used = self._wanted = 0
