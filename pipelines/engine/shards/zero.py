"""Code that all ZeRO stages share: reference passes run through the engine, and their traces are then removed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipelines.engine.shards.access import ShardAccess


def await_host_copies() -> None:
    """Wait until gradients that an offloading engine copies from a GPU to the host have arrived there.

    With ``pin_memory`` the copies are asynchronous. DeepSpeed waits for them in its step, and we read them before it.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class ZeroAccess(ShardAccess):
    """What the ZeRO stages share: reference passes run through the engine, whose traces are then removed."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine.module)
        self.engine, self.optimizer = engine, engine.optimizer
        self.replicated = False
        self.forward = engine

    def accumulate(self, loss: Tensor, *, last: bool, into: Sequence[Tensor]) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss, scale_wrt_gas=False)
        if not last:
            return
        for row, gradient in zip(into, self.gradients(), strict=True):
            if gradient is not None:
                row.add_(gradient)
        self._discard()

    @abstractmethod
    def _discard(self) -> None:
        """Remove every trace of the backward passes since the last step."""

    @contextmanager
    def untraced(self) -> Iterator[None]:
        engine_boundary = self.engine._is_gradient_accumulation_boundary
        optimizer_boundary = self.optimizer.is_gradient_accumulation_boundary
        with super().untraced():
            try:
                yield
            except BaseException:
                self._discard()
                raise
            finally:
                self.engine._is_gradient_accumulation_boundary = engine_boundary
                self.optimizer.is_gradient_accumulation_boundary = optimizer_boundary
