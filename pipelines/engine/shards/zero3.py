"""Where ZeRO stage 3 keeps this rank's gradients and master weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.engine.shards.access import MasterSlice, Shard
from pipelines.engine.shards.zero import ZeroAccess, await_host_copies


class Zero3Access(ZeroAccess):
    """ZeRO stage 3, with or without the optimizer in CPU memory."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        rank = dist.get_rank()
        self._present = []
        for index, parameter in enumerate(self._parameters):
            start = rank * parameter.partition_numel()  # type: ignore[attr-defined]
            numel = min(parameter.partition_numel(), parameter.ds_numel - start)  # type: ignore[attr-defined]
            if numel > 0:
                self._present.append((index, parameter))
                self.shards.append(Shard(index, int(start), int(numel)))

    def device(self) -> torch.device:
        return torch.device(self.engine.device)

    def rows_device(self) -> torch.device:
        return torch.device("cpu") if self.optimizer.offload_optimizer else self.device()

    def gradients(self) -> list[Tensor | None]:
        if self.optimizer.offload_optimizer:
            await_host_copies()
        views: list[Tensor | None] = []
        for shard, (_, parameter) in zip(self.shards, self._present, strict=True):
            view = self.optimizer._get_fp32_grad_state_partition(parameter, release_swap_buffers=True)[0]
            views.append(view.data.view(-1)[: shard.numel])
        return views

    def masters(self) -> list[MasterSlice]:
        slices = []
        for shard, (_, parameter) in zip(self.shards, self._present, strict=True):
            group, offset, _ = self.optimizer.grad_position[self.optimizer.get_param_id(parameter)]
            slices.append(MasterSlice(self.optimizer.fp32_partitioned_groups_flat[group], int(offset), shard.numel))
        return slices

    def gradients_edited(self) -> None:
        if not self.optimizer.offload_optimizer:
            return
        norms = self.optimizer.norm_for_param_grads
        for (_, parameter), gradient in zip(self._present, self.gradients(), strict=True):
            key = self.optimizer.get_param_id(parameter)
            if gradient is not None and key in norms:
                # DeepSpeed adds the norms up in place, also those of parameters of which this rank holds nothing: all
                # have to stay on the device where it put them.
                norms[key] = gradient.double().norm(2).to(norms[key].device, torch.float32)

    def weights_edited(self) -> None:
        # Small parameters stay gathered on every rank: they are released first, and gathered again afterwards.
        self.optimizer.checkpoint_event_prologue()
        for group in range(len(self.optimizer.fp32_partitioned_groups_flat)):
            self.optimizer._reassign_or_swap_out_partitioned_parameters(group)
        self.optimizer.checkpoint_event_epilogue()

    def _discard(self) -> None:
        optimizer = self.optimizer
        optimizer.zero_grad()
        optimizer.grad_partitions_flat_buffer.zero_()
        for key in list(optimizer.averaged_gradients):
            optimizer.averaged_gradients[key] = None
        for bucket in optimizer.ipg_buckets.values():
            bucket.clear_params()
        optimizer._offload_boundary_param_ids = set()
        if optimizer.offload_optimizer:
            optimizer.norm_for_param_grads = {}
            for partition in optimizer.fp32_partitioned_groups_flat:
                if partition.grad is not None:
                    partition.grad.zero_()
