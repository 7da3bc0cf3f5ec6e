"""Where ZeRO stages 1 and 2 keep this rank's gradients and master weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelines.engine.shards.access import MasterSlice, Shard
from pipelines.engine.shards.zero import ZeroAccess, await_host_copies


class Zero12Access(ZeroAccess):
    """ZeRO stages 1 and 2, with or without the optimizer in CPU memory."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self._present = [
            (index, parameter)
            for index, parameter in enumerate(self._parameters)
            if parameter._hp_mapping is not None  # type: ignore[attr-defined]
        ]
        for index, parameter in self._present:
            address = parameter._hp_mapping.lp_fragment_address  # type: ignore[attr-defined]
            self.shards.append(Shard(index, int(address.start), int(address.numel)))

    def rows_device(self) -> torch.device:
        return torch.device("cpu") if self.optimizer.cpu_offload else self.device()

    def gradients(self) -> list[Tensor | None]:
        if self.optimizer.cpu_offload:
            await_host_copies()
        views: list[Tensor | None] = []
        for shard, (_, parameter) in zip(self.shards, self._present, strict=True):
            mapping = parameter._hp_mapping  # type: ignore[attr-defined]
            view = mapping.get_lp_grad_fragment(parameter._index_in_param_group)  # type: ignore[attr-defined]
            views.append(None if view is None else view.data.view(-1)[: shard.numel])
        return views

    def masters(self) -> list[MasterSlice]:
        slices = []
        for _, parameter in self._present:
            mapping = parameter._hp_mapping  # type: ignore[attr-defined]
            owner = self.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            address = mapping.get_hp_fragment_address()
            slices.append(MasterSlice(owner, int(address.start), int(address.numel)))
        return slices

    def gradients_edited(self) -> None:
        if not self.optimizer.cpu_offload:
            return
        # The clip norm was cached when the gradients were reduced.
        for (_, parameter), gradient in zip(self._present, self.gradients(), strict=True):
            key = self.optimizer.get_param_id(parameter)
            if gradient is not None and key in self.optimizer.norm_for_param_grads:
                self.optimizer.norm_for_param_grads[key] = gradient.double().norm(2).to(gradient.device)

    def weights_edited(self) -> None:
        self.optimizer.update_lp_params()

    def _discard(self) -> None:
        optimizer = self.optimizer
        optimizer.zero_grad()
        optimizer._release_preflattened_grad_buffers()
        for key in list(optimizer.averaged_gradients):
            optimizer.averaged_gradients[key] = None
        for key in list(optimizer.all_grad_tensors):
            optimizer.all_grad_tensors[key] = None
        optimizer.micro_step_id = -1
        if optimizer.cpu_offload:
            optimizer._offload_accumulated_param_ids = set()
            optimizer.reset_cpu_buffers()
            for partition in optimizer.single_partition_of_fp32_groups:
                if partition.grad is not None:
                    partition.grad.zero_()
