"""A transform acts in an optimizer step, between the reduced gradient and the next forward pass.

There are three places in a step. The reduced, accumulated gradient can be edited before it is clipped. The change that
the optimizer made can be edited after it: one group of parameters at a time, since ZeRO steps them so, or all together
once the whole step is done. And what finally became of the weights can be looked at. A chain calls the transforms at
these places (:mod:`pipelines.transforms.chain`); a transform knows shards, and neither trainers nor other transforms.
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
    """The part of a step that is looked at at a time: the shards of one group of the optimizer, or all of them.

    Attributes:
        which: indices of its shards, in the order of ``ShardAccess.shards``.
        masters: where the optimizer keeps them; their views are live.
        before: for each of them the weights from before the optimizer's step, ``[numel]`` in the masters' dtype; None
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
        name: stands before its figures in the log, and for it in checkpoints.
        order: the place in the chain; those with smaller numbers act first.
        reads_gradient: whether the self-test of the first step is to watch over the gradient for it.
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
            measured: whether figures are wanted of this step.

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
        """Whether it wants to see the change that finally remains."""
        return False

    def on_final_change(self, part: StepPart, change: Sequence[Tensor | None]) -> None:
        """See the change of the weights, ``[numel]`` for each shard of the part; None where it was not kept."""

    def end_step(self) -> None:
        """The step is done."""

    def refresh_due(self, step: int) -> bool:
        """Whether something is to be computed anew before optimizer step ``step`` (from 0)."""
        return False

    def refresh(self, optimizer: Any) -> None:
        """Compute it anew, between two steps, leaving no trace in the training state but what is meant."""

    def figures(self) -> Figures:
        """Figures of the last measured step, and others that wait for the log; asked for once a log line."""
        return {}

    # --- Checkpoints ---

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside tensors; JSON-ready, and the same on all ranks."""
        return {}

    def tensors(self) -> dict[str, Sequence[Tensor]]:
        """What a checkpoint keeps by shard: ``[..., numel]`` for each shard, by a name of its own."""
        return {}

    def restore(self, state: dict[str, Any], tensors: dict[str, list[Tensor]]) -> None:
        """Take over what :meth:`state` and :meth:`tensors` gave, spread over this rank's shards."""

    # --- The end of a run ---

    def finish(self, directory: Path) -> dict[str, Any]:
        """Write what the transform leaves beside the model, and give figures for the manifest. Collective."""
        return {}
