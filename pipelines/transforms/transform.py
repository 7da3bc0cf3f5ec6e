"""A transform acts in an optimizer step, between the reduced gradient and the next forward pass.

There are three places in a step. The reduced, accumulated gradient can be edited before it is clipped. The change that
the optimizer made can be edited after it: one group of parameters at a time, as ZeRO steps them, or all together once
the whole step is done. Finally, the change that remains can be observed. A chain calls the transforms at these places
(:mod:`pipelines.transforms.chain`); a transform knows shards, and neither trainers nor other transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from pipelines.engine.shards.access import MasterSlice

Figures = dict[str, float]


@dataclass(frozen=True)
class StepPart:
    """The part of a step that is handled at once: the shards of one of the optimizer's groups, or all shards.

    Attributes:
        which: the indices of its shards, in the order of ``ShardAccess.shards``.
        masters: the slices in which the optimizer keeps these shards; their views are live.
        before: for each shard the weights from before the optimizer's step, ``[numel]`` in the masters' dtype; None
            where no transform wanted to keep them.
    """

    which: Sequence[int]
    masters: Sequence[MasterSlice]
    before: Sequence[Tensor | None]


class Transform:
    """An edit or an observation of every step. Every method does nothing here; a transform overrides what it needs.

    All methods are called on every rank in the same order, also on ranks that hold no shard, so that any of them may
    reduce over ranks.

    Attributes:
        name: the prefix of its figures in the log, and its name in checkpoints.
        order: its place in the chain; transforms with smaller numbers act first.
        reads_gradient: whether the self-test of the first step must check the gradient for it.
        needs_whole_step: whether its edit of the change needs all groups together.
    """

    name: ClassVar[str]
    order: ClassVar[int]
    reads_gradient: ClassVar[bool] = False
    needs_whole_step: bool = False

    def on_gradient(self, gradients: Sequence[Tensor | None], *, measured: bool) -> bool:
        """Act on the accumulated, reduced gradient before clipping.

        Args:
            gradients: live flat views, one for each shard; None where no gradient arrived.
            measured: whether figures are wanted for this step.

        Returns:
            Whether gradients were edited; the same on all ranks.
        """
        return False

    def keeps_weights(self, shard: int, *, measured: bool) -> bool:
        """Whether the weights of this shard from before the optimizer's step are needed after it."""
        return False

    def on_change(self, part: StepPart, *, measured: bool) -> bool:
        """Edit what the optimizer made of the weights, in place.

        Returns:
            Whether weights were edited; the same on all ranks.
        """
        return False

    def observes_change(self, *, measured: bool) -> bool:
        """Whether the transform wants to observe the change that finally remains."""
        return False

    def on_final_change(self, part: StepPart, change: Sequence[Tensor | None]) -> None:
        """Observe the weights' change, ``[numel]`` for each shard of the part; None where it was not kept."""

    def end_step(self) -> None:
        """Conclude the step."""

    def refresh_due(self, step: int) -> bool:
        """Whether the transform must be refreshed before optimizer step ``step`` (counted from 0)."""
        return False

    def refresh(self, optimizer: Any) -> None:
        """Refresh the transform between two steps, without unintended effects on the training state."""

    def figures(self) -> Figures:
        """Figures of the last measured step, and others that wait for the log; called once per log line."""
        return {}

    # --- Checkpoints ---

    def state(self) -> dict[str, Any]:
        """The values other than tensors that a checkpoint keeps; JSON-ready, and the same on all ranks."""
        return {}

    def tensors(self) -> dict[str, Sequence[Tensor]]:
        """The tensors that a checkpoint keeps, by name: ``[..., numel]`` for each shard."""
        return {}

    def restore(self, state: dict[str, Any], tensors: dict[str, list[Tensor]]) -> None:
        """Restore the results of :meth:`state` and :meth:`tensors`, spread over this rank's shards."""

    # --- The end of a run ---

    def finish(self, directory: Path) -> dict[str, Any]:
        """Write the transform's files beside the model, and return figures for the manifest. Collective."""
        return {}
