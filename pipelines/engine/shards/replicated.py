"""One process, data parallelism, or ZeRO stage 0: every rank holds whole gradients and weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelines.engine.shards.access import MasterSlice, Shard, ShardAccess


class ReplicatedAccess(ShardAccess):
    """One process, data parallelism without DeepSpeed, or ZeRO stage 0: every rank holds whole gradients."""

    def __init__(self, module: nn.Module, masters: Sequence[Tensor] | None = None) -> None:
        super().__init__(module)
        self._masters = list(masters) if masters is not None else list(self._parameters)
        self.shards = [Shard(index, 0, parameter.numel()) for index, parameter in enumerate(self._parameters)]

    def gradients(self) -> list[Tensor | None]:
        return [None if p.grad is None else p.grad.data.view(-1) for p in self._parameters]

    def masters(self) -> list[MasterSlice]:
        return [MasterSlice(master, 0, master.numel()) for master in self._masters]

    def align_masters(self, tensors: Collection[int]) -> None:
        # DeepSpeed's unfused optimizer takes a step without gradients when it is made: weight decay has then moved the
        # masters once, before training begins.
        for index in tensors:
            self._masters[index].data.copy_(self._parameters[index].data)

    def weights_edited(self) -> None:
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            if parameter is not master:
                parameter.data.copy_(master.data)

    def accumulate(self, loss: Tensor, *, last: bool, into: Sequence[Tensor]) -> None:
        # autograd.grad fires none of the engine's or DDP's hooks, so nothing has to be cleared afterwards.
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        for row, gradient in zip(into, gradients, strict=True):
            if gradient is not None:
                # Unlike those that are kept, such gradients may lie in memory in another order than their parameters.
                row.add_(gradient.reshape(-1))
        if last and self.world_size > 1:
            for row in into:
                dist.all_reduce(row)
                row.div_(self.world_size)
