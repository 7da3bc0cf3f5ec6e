"""The transforms of a run, called in a fixed order at fixed places of every step; the chain owns what they share.

Shared are the hooks on the optimizer, the one copy of the weights from before its step, the self-test of the first
step, and what checkpoints keep. A step without transforms has no chain, and is then exactly the trainer's own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.engine.shards.access import MasterSlice, ShardAccess
from pipelines.transforms.kept_weights import KeptWeights
from pipelines.transforms.reach_test import ReachTest
from pipelines.transforms.rounds import StepInRounds, round_elements_on
from pipelines.transforms.transform import Figures, StepPart, Transform


class TransformChain:
    """Calls the transforms of a run.

    Args:
        access: this rank's shards.
        optimizer: the torch optimizer that steps the master weights.
        transforms: the transforms, in any order; they act in the order of their ``order`` attributes.
        round_elements: how many elements of the weights from before its step are kept at once on a rank, if no single
            tensor has more; None for what suits the device.
    """

    def __init__(
        self,
        access: ShardAccess,
        optimizer: torch.optim.Optimizer,
        transforms: Sequence[Transform],
        *,
        round_elements: int | None = None,
    ) -> None:
        self.access = access
        self.transforms = sorted(transforms, key=lambda transform: transform.order)
        self._optimizer = optimizer
        self._measured = False
        self._needs_whole_step = any(transform.needs_whole_step for transform in self.transforms)
        self._parts: list[StepPart] = []
        # An edit that needs the whole step needs all weights from before it.
        most = round_elements_on(access.device()) if round_elements is None else round_elements
        self._kept = KeptWeights(most)
        limit = sys.maxsize if self._needs_whole_step else most
        self._step = StepInRounds(access, optimizer, self._is_kept, limit)
        self._held: tuple[list[int], list[MasterSlice], list[Tensor | None]] | None = None
        watched = any(transform.reads_gradient for transform in self.transforms)
        self._reach_test: ReachTest | None = ReachTest(access.names) if watched else None
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_optimizer),
            optimizer.register_step_post_hook(self._after_optimizer),
        ]

    def close(self) -> None:
        """Remove the hooks from the optimizer."""
        for hook in self._hooks:
            hook.remove()
        self._step.close()

    def get(self, name: str) -> Any:
        """The transform of that name; None where the run has no such transform."""
        return next((transform for transform in self.transforms if transform.name == name), None)

    # --- Each step ---

    def at_boundary(self, *, measured: bool = True) -> None:
        """Act on the accumulated, reduced gradient: between the last backward pass and clipping.

        Args:
            measured: whether figures are wanted for this step: norms cost a pass over the gradient, and figures about
                the change cost a copy of the master weights.
        """
        gradients = self.access.gradients()
        self._measured = measured
        self._step.begin(measured=measured)
        self._parts = []
        edited = [transform.on_gradient(gradients, measured=measured) for transform in self.transforms]
        if any(edited):
            self.access.gradients_edited()
        if self._reach_test is not None:
            self._reach_test.expect(self.access.shards, gradients)

    def _before_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        which, masters = self._step.concerned()
        if self._reach_test is not None:
            self._reach_test.check(which, [master.gradient() for master in masters])
        before = [
            self._kept.copy(master.weights()) if self._is_kept(shard) else None
            for shard, master in zip(which, masters, strict=True)
        ]
        self._held = (which, masters, before)

    def _is_kept(self, shard: int) -> bool:
        return any(transform.keeps_weights(shard, measured=self._measured) for transform in self.transforms)

    def _after_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        assert self._held is not None
        part = StepPart(*self._held)
        self._held = None
        if self._needs_whole_step:
            self._parts.append(part)
        else:
            self._change(part)

    def _change(self, part: StepPart) -> bool:
        edited = [transform.on_change(part, measured=self._measured) for transform in self.transforms]
        observers = [each for each in self.transforms if each.observes_change(measured=self._measured)]
        if observers:
            # The copy is no longer needed, so its memory can hold the change.
            change = [
                None if before is None else before.neg_().add_(master.weights())
                for master, before in zip(part.masters, part.before, strict=True)
            ]
            for transform in observers:
                transform.on_final_change(part, change)
        self._kept.release(again=not self._measured)
        return any(edited)

    def end_step(self) -> None:
        """Conclude a step, once all groups have been stepped: edits that need them together, and the self-test.

        Raises:
            EngineError: the optimizer did not see the edited gradient.
        """
        if self._needs_whole_step:
            parts, self._parts = self._parts, []
            which = [shard for part in parts for shard in part.which]
            masters = [master for part in parts for master in part.masters]
            if self._change(StepPart(which, masters, [before for part in parts for before in part.before])):
                self.access.weights_edited()
        for transform in self.transforms:
            transform.end_step()
        if self._reach_test is not None:
            self._reach_test.conclude()
            self._reach_test = None

    # --- Between steps ---

    def refresh_due(self, step: int) -> bool:
        """Whether any transform must be refreshed before optimizer step ``step`` (counted from 0)."""
        return any(transform.refresh_due(step) for transform in self.transforms)

    def refresh(self, step: int) -> None:
        """Refresh the transforms that are due."""
        for transform in self.transforms:
            if transform.refresh_due(step):
                transform.refresh(self._optimizer)

    def figures(self) -> Figures:
        """The figures of all transforms, as ``NAME/FIGURE``."""
        return {
            f"{transform.name}/{key}": value
            for transform in self.transforms
            for key, value in transform.figures().items()
        }

    # --- Checkpoints, and the end ---

    def state(self) -> dict[str, Any]:
        """The values other than tensors that a checkpoint keeps, by transform; JSON-ready."""
        return {transform.name: transform.state() for transform in self.transforms}

    def tensors(self) -> dict[str, Sequence[Tensor]]:
        """The tensors that a checkpoint keeps by shard, under the names ``TRANSFORM.NAME``."""
        return {
            f"{transform.name}.{key}": values
            for transform in self.transforms
            for key, values in transform.tensors().items()
        }

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, list[Tensor]]) -> None:
        """Restore the transforms from the results of :meth:`state` and :meth:`tensors`."""
        for transform in self.transforms:
            start = f"{transform.name}."
            mine = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
            transform.restore(state[transform.name], mine)

    def finish(self, directory: Path) -> dict[str, Any]:
        """Have every transform write its files, and return the figures for the manifest. Collective."""
        return {key: value for transform in self.transforms for key, value in transform.finish(directory).items()}
