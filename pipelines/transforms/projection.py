"""Projection within a training run: what happens at each step and at each refresh. Knows shards, not trainers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.basis.passes import LossSum, Objective, ReferenceResult, reference_gradients
from pipelines.engine.shards.access import MasterSlice, ShardAccess
from pipelines.gradients import projection
from pipelines.transforms import diagnostics
from pipelines.transforms.projector import Measure, Projector
from pipelines.transforms.reach_test import ReachTest

logger = logging.getLogger(__name__)

Figures = dict[str, float]


@dataclass(frozen=True)
class ProjectionSettings:
    """How a run projects.

    Attributes:
        space: ``"gradient"`` projects the reduced gradient, ``"update"`` the optimizer's change.
        refresh_every: steps between refreshes; 0 never.
        refresh_at_start: whether the stored rows belong to other weights than those training starts from.
        strength: share of the forbidden component that is removed.
        seed: of dropout in reference passes.
    """

    space: Literal["gradient", "update"]
    refresh_every: int
    refresh_at_start: bool
    strength: float
    seed: int


class ProjectionSession:
    """Projects at every optimizer step and refreshes the rows when due.

    Args:
        settings: how.
        access: this rank's shards.
        optimizer: the torch optimizer that steps the master weights.
        rows: the basis: one ``[k, numel]`` tensor for each shard.
        objectives: this rank's part of every reference objective, for refreshes.
        loss_sum: the reference loss of a batch, summed over its tokens.
        before_batch: called before each batch of a refresh, on all ranks alike; what it raises ends the refresh, of
            which then nothing remains.
    """

    def __init__(
        self,
        settings: ProjectionSettings,
        access: ShardAccess,
        optimizer: torch.optim.Optimizer,
        rows: Sequence[Tensor],
        objectives: Sequence[Objective],
        loss_sum: LossSum,
        *,
        before_batch: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings, self.access = settings, access
        self.objectives, self._loss_sum = list(objectives), loss_sum
        self._before_batch = before_batch
        self.names = [objective.name for objective in objectives]
        self.projector = Projector(access, rows, settings.strength)
        self._dtype = rows[0].dtype if rows else torch.float32
        self._steps = 0
        self._reach_test: ReachTest | None = ReachTest(access.names)
        self._change = _StepChange(self)
        self._gradient: Measure | None = None
        self.refresh_figures: Figures = {}
        self.layer_rows: list[tuple[int, str, float]] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_optimizer),
            optimizer.register_step_post_hook(self._after_optimizer),
        ]

    def close(self) -> None:
        """Remove the hooks from the optimizer."""
        for hook in self._hooks:
            hook.remove()

    # --- Each step ---

    def at_boundary(self, step: int, *, measured: bool = True) -> None:
        """Act on the accumulated, reduced gradient: between the last backward pass and clipping.

        Args:
            step: number of the optimizer step, from 0.
            measured: whether figures are wanted of this step: norms cost a pass over the gradient, the leak a copy of
                the master weights.
        """
        gradients = self.access.gradients()
        self._change.measured = measured
        if self.settings.space == "gradient":
            measure = self.projector.project_(gradients, norms=measured)
            self._gradient = measure if measured else None
            self.access.gradients_edited()
        elif measured:
            self._gradient = self.projector.measure(gradients)
        if self._reach_test is not None:
            self._reach_test.expect(self.access.shards, gradients)
        self._change.start()
        self._steps = step + 1

    def _before_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        which, masters = self._concerned(optimizer)
        if self._reach_test is not None:
            self._reach_test.check(which, [master.gradient() for master in masters])
        self._change.before(which, masters)

    def _after_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._change.after()

    def _concerned(self, optimizer: torch.optim.Optimizer) -> tuple[list[int], list[MasterSlice]]:
        # ZeRO steps one group (stages 1, 2) or sub-group (stage 3) at a time.
        present = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        masters = self.access.masters()
        which = [index for index, master in enumerate(masters) if id(master.owner) in present]
        return which, [masters[index] for index in which]

    def end_step(self) -> None:
        """Conclude the first step's self-test.

        Raises:
            EngineError: the optimizer did not see the edited gradient.
        """
        if self._reach_test is not None:
            self._reach_test.conclude()
            self._reach_test = None

    # --- Refresh ---

    def refresh_due(self, step: int) -> bool:
        """Whether the rows are to be recomputed before optimizer step ``step`` (from 0)."""
        every = self.settings.refresh_every
        if step == 0:
            return self.settings.refresh_at_start
        return every > 0 and step % every == 0

    def refresh(self) -> Figures:
        """Recompute the rows at the present weights, leaving no trace in the training state.

        Returns:
            ``reference_loss/NAME`` of each objective, and ``drift_degrees``: the mean principal angle to the old rows.
        """
        result = self.compute_rows()
        rows = [row.to(self._dtype) for row in result.rows]
        figures = {f"reference_loss/{name}": loss for name, loss in zip(self.names, result.losses, strict=True)}
        figures["drift_degrees"] = self._drift(rows)
        self.projector.replace(rows)
        self.refresh_figures = figures
        return figures

    def compute_rows(self) -> ReferenceResult:
        """The reference gradients at the present weights, float32, without taking them over."""
        return reference_gradients(
            self.access,
            self.access.forward,
            self._loss_sum,
            self.objectives,
            seed=self.settings.seed,
            before_batch=self._before_batch,
        )

    def _drift(self, rows: Sequence[Tensor]) -> float:
        old_factors, k = self.projector.factors, self.projector.num_rows
        cross = torch.zeros(2, len(self.access.names), k, k, dtype=torch.float64, device=self.access.device())
        for shard, old, new in zip(self.access.shards, self.projector.rows, rows, strict=True):
            for j in range(k):
                cross[0, shard.tensor, :, j] += projection.dots(old, new[j]).to(cross.device)
            cross[1, shard.tensor] += projection.gram(new).to(cross.device)
        if not self.access.replicated and self.access.world_size > 1:
            dist.all_reduce(cross)
        cosines = diagnostics.principal_angles(old_factors, projection.inverse_factor(cross[1]), cross[0])
        kept = torch.arange(k, device=cosines.device) < self.projector.ranks[:, None]
        return float(torch.rad2deg(torch.acos(cosines[kept])).mean()) if bool(kept.any()) else 0.0

    # --- Going on from a checkpoint ---

    def progress(self) -> dict[str, Any]:
        """What a checkpoint keeps beside rows and layer figures, JSON-ready."""
        return {"steps": self._steps, "refresh_figures": self.refresh_figures}

    def restore(self, progress: dict[str, Any], layer_rows: Sequence[tuple[int, str, float]]) -> None:
        """Take over what :meth:`progress` gave and the layer figures of earlier steps."""
        self._steps = int(progress["steps"])
        self.refresh_figures = dict(progress["refresh_figures"])
        self.layer_rows = list(layer_rows)

    # --- Figures ---

    def figures(self) -> Figures:
        """The last step's diagnostics, and those of a refresh since the last call, for the log."""
        figures: Figures = {}
        measure = self._change.removed if self.settings.space == "update" else self._gradient
        if self._gradient is not None:
            figures |= diagnostics.gradient_figures(self._gradient, self.projector, self.names)
        if measure is not None:
            shares = diagnostics.gradient_figures(measure, self.projector, self.names)
            figures |= {key: shares[key] for key in ("removed", "removed_random")}
            removed = diagnostics.removed_by_tensor(measure)
            self.layer_rows += [(self._steps, *row) for row in zip(self.access.names, removed, strict=True)]
        if self._change.final is not None:
            figures |= diagnostics.leak_figures(
                self._change.final, self.projector, self.names, self._change.weights_norm
            )
        figures |= self.refresh_figures
        self.refresh_figures = {}
        return figures


class _StepChange:
    """The optimizer's change of one step: measured, and in update space made orthogonal to the rows.

    Attributes:
        measured: whether this step's change is measured.
        removed: what projection of the change found, summed over the optimizer's groups.
        final: the change that remained, where measured.
        weights_norm: norm of the weights that it was added to.
    """

    def __init__(self, session: ProjectionSession) -> None:
        self._session = session
        self.measured = False
        self.removed: Measure | None = None
        self.final: Measure | None = None
        self.weights_norm = 0.0
        self._held: tuple[list[int], list[MasterSlice], list[Tensor]] | None = None
        self._removed_now: list[Measure] = []
        self._final_now: list[Measure] = []
        self._norms_now: list[float] = []

    def start(self) -> None:
        self.final = None
        self._removed_now, self._final_now, self._norms_now = [], [], []

    def before(self, which: list[int], masters: list[MasterSlice]) -> None:
        if self._session.settings.space == "update" or self.measured:
            self._held = (which, masters, [master.weights().clone() for master in masters])

    def after(self) -> None:
        if self._held is None:
            return
        which, masters, old = self._held
        self._held = None
        weights = [master.weights() for master in masters]
        projector = self._session.projector
        if self._session.settings.space == "update":
            # The difference of close numbers is exact, so the weights themselves can hold the change meanwhile.
            for new, before in zip(weights, old, strict=True):
                new.sub_(before)
            self._removed_now.append(projector.project_(weights, which, norms=self.measured))
            for new, before in zip(weights, old, strict=True):
                new.add_(before)
            self.removed = _sum(self._removed_now) if self.measured else None
        if self.measured:
            for new, before in zip(weights, old, strict=True):
                before.neg_().add_(new)
            self._final_now.append(projector.measure(old, which))
            self.final = _sum(self._final_now)
            self._norms_now.append(projector.total_norm(weights))
            self.weights_norm = math.hypot(*self._norms_now)


def _sum(measures: Sequence[Measure]) -> Measure:
    def total(pick: Callable[[Measure], Tensor]) -> Tensor:
        return torch.stack([pick(measure) for measure in measures]).sum(0)

    return Measure(total(lambda m: m.inner), total(lambda m: m.squared), total(lambda m: m.removed))
