"""Masking: single weights keep their start to the bit, whatever optimizer, weight decay, momentum and clipping do.

It acts at one of two places. ``update`` lets the optimizer see the full gradient and puts frozen weights back after
its step. ``gradient`` sets their gradients to zero before clipping, so that the clip norm is that of the trained
weights and the optimizer's moments of frozen ones stay 0; a copy of the weights is then kept only where the optimizer
would move a weight that has no gradient. For optimizers that treat each weight by itself, both give the same bits
where nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from data_registry.core.errors import EngineError
from pipelines.engine.shards.access import ShardAccess
from pipelines.gradients import masking
from pipelines.transforms.transform import StepPart, Transform

Place = Literal["update", "gradient"]
_SAMPLE = 1 << 16
# They leave a weight whose gradient was always +0 as it is, to the bit, unless they decay it.
_BY_ITSELF = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD)


def needs_restoring(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer would move weights whose gradients have always been 0: by decay, or by what it is."""
    return type(optimizer) not in _BY_ITSELF or any(
        group.get("weight_decay") or group.get("maximize") for group in optimizer.param_groups
    )


def masking_transforms(
    place: Place, access: ShardAccess, frozen: Sequence[Tensor], optimizer: torch.optim.Optimizer, *, again: bool
) -> list[Transform]:
    """The transforms that hold frozen weights.

    Args:
        place: where they act.
        access: this rank's shards.
        frozen: for each shard ``[numel]`` bool, True for elements that must not move, on ``access.rows_device()``.
        optimizer: the optimizer that steps the master weights.
        again: whether another transform edits the update: frozen weights are then put back after it too, since a
            difference of 0 that is added to -0 gives 0.
    """
    first = (
        MaskedGradient(access, frozen, restores=needs_restoring(optimizer))
        if place == "gradient"
        else MaskedUpdate(access, frozen)
    )
    return [first, *([Remasking(frozen)] if again else [])]


class _Restoring(Transform):
    """Puts frozen weights back after the optimizer's step.

    Args:
        frozen: for each shard ``[numel]`` bool.
        restores: whether it does so at all.
    """

    def __init__(self, frozen: Sequence[Tensor], *, restores: bool = True) -> None:
        self._frozen, self._restores = list(frozen), restores
        self._any = [bool(each.any()) for each in self._frozen]

    def keeps_weights(self, shard: int, *, measured: bool) -> bool:
        """Keep the weights of shards that have frozen ones."""
        return self._restores and self._any[shard]

    def on_change(self, part: StepPart, *, measured: bool) -> bool:
        """Put the frozen weights back."""
        if not self._restores:
            return False
        for shard, master, before in zip(part.which, part.masters, part.before, strict=True):
            if before is not None and self._any[shard]:
                masking.restore_(master.weights(), before, self._frozen[shard])
        return True


class Remasking(_Restoring):
    """Puts frozen weights back once more, after the projection of the update."""

    name: ClassVar[str] = "remask"
    order: ClassVar[int] = 30


class MaskedUpdate(_Restoring):
    """Holds the weights outside a mask at their start, after the optimizer's step; see the module.

    Args:
        access: this rank's shards, as training begins.
        frozen: for each shard ``[numel]`` bool, True for elements that must not move, on ``access.rows_device()``.
        restores: whether frozen weights are put back after the optimizer's step.
    """

    name: ClassVar[str] = "mask"
    order: ClassVar[int] = 12

    def __init__(self, access: ShardAccess, frozen: Sequence[Tensor], *, restores: bool = True) -> None:
        super().__init__(frozen, restores=restores)
        self.access = access
        self._align()
        weights = [master.weights().detach() for master in access.masters()]
        self._start = _Compact([each[~held] for each, held in zip(weights, frozen, strict=True)], frozen)
        self._sums = self._checksums()
        self._sample: list[Tensor] | None = [each[:_SAMPLE].clone() for each in weights]
        # Counted now, while no rank can be ahead of another.
        self._num_selected, self._num_frozen = self._totals(
            [int((~held).sum()) for held in frozen], [int(held.sum()) for held in frozen]
        )

    def _align(self) -> None:
        """Make frozen masters the weights that the model computes with; trained ones stay as they are."""
        for shard, master, held in zip(self.access.shards, self.access.masters(), self._frozen, strict=True):
            if bool(held.any()):
                trained = master.weights().clone()
                self.access.align_masters([shard.tensor])
                masking.restore_(master.weights(), trained, ~held)

    def end_step(self) -> None:
        """After the first step, see on a sample that frozen weights have not moved.

        Raises:
            EngineError: one has.
        """
        if self._sample is None:
            return
        for index, (start, master) in enumerate(zip(self._sample, self.access.masters(), strict=True)):
            held = self._frozen[index][:_SAMPLE]
            if masking.num_differing(master.weights()[:_SAMPLE][held], start[held]):
                raise EngineError(
                    f"weights of {self.access.names[self.access.shards[index].tensor]} outside the mask have moved",
                    where="self-test at the first optimizer step",
                    fix="try another --zero stage, and report your DeepSpeed configuration and version (ogpsa doctor)",
                )
        self._sample = None

    def state(self) -> dict[str, Any]:
        """The checksums of the frozen weights at the start."""
        return {"frozen": self._sums}

    def tensors(self) -> dict[str, Sequence[Tensor]]:
        """The trained weights at the start, 0 in the places of frozen ones."""
        return {"start": self._start}

    def restore(self, state: dict[str, Any], tensors: dict[str, list[Tensor]]) -> None:
        """Take over the start of the run, not that of the weights it resumes at."""
        self._sums = state["frozen"]
        compact = [whole[~held] for whole, held in zip(tensors["start"], self._frozen, strict=True)]
        self._start = _Compact(compact, self._frozen)

    def finish(self, directory: Path) -> dict[str, Any]:
        """Whether the frozen master weights are those of the start, and how many trained ones are not. Collective."""
        moved = [
            masking.num_differing(master.weights().detach()[~held], start)
            for master, held, start in zip(self.access.masters(), self._frozen, self._start.parts, strict=True)
        ]
        (num_moved,) = self._totals(moved)
        return {
            "trained_weights": self._num_selected,
            "frozen_weights": self._num_frozen,
            "frozen_identical": self._checksums() == self._sums,
            "moved_share": num_moved / max(1, self._num_selected),
        }

    def _checksums(self) -> dict[str, list[int]]:
        device = self.access.device()
        sums = torch.zeros(len(self.access.names), 2, dtype=torch.int64, device=device)
        for shard, master, held in zip(self.access.shards, self.access.masters(), self._frozen, strict=True):
            sums[shard.tensor] += masking.checksum(master.weights().detach(), held, shard.start).to(device)
        self._add_up(sums)
        return dict(zip(self.access.names, sums.tolist(), strict=True))

    def _totals(self, *numbers: Sequence[int]) -> list[int]:
        """Sums over the shards of all ranks."""
        sums = torch.tensor([sum(each) for each in numbers], device=self.access.device())
        self._add_up(sums)
        found: list[int] = sums.tolist()
        return found

    def _add_up(self, sums: Tensor) -> None:
        if not self.access.replicated and self.access.world_size > 1:
            dist.all_reduce(sums)


class MaskedGradient(MaskedUpdate):
    """Holds the weights outside a mask at their start, by gradients that are 0 before clipping; see the module."""

    reads_gradient: ClassVar[bool] = True

    def on_gradient(self, gradients: Sequence[Tensor | None], *, measured: bool) -> bool:
        """Set the frozen gradients to zero."""
        for gradient, frozen, some in zip(gradients, self._frozen, self._any, strict=True):
            if gradient is not None and some:
                masking.zero_frozen_(gradient, frozen)
        return True


class _Compact(Sequence[Tensor]):
    """Trained weights of each shard without gaps; asked for by index, one shard is spread out, with 0 in the gaps."""

    def __init__(self, parts: list[Tensor], frozen: Sequence[Tensor]) -> None:
        self.parts, self._frozen = parts, list(frozen)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: Any) -> Any:
        whole = torch.zeros_like(self._frozen[index], dtype=self.parts[index].dtype)
        whole[~self._frozen[index]] = self.parts[index]
        return whole

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))
