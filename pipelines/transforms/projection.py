"""Projection as a transform: the gradient, or the optimizer's change, loses what lies in the reference subspace."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.engine.shards.access import ShardAccess
from pipelines.gradients import projection
from pipelines.passes.gradients import LossSum, Objective, ReferenceResult, reference_gradients
from pipelines.transforms import diagnostics
from pipelines.transforms.layer_rows import LayerRows
from pipelines.transforms.projector import Masked, Measure, Projector
from pipelines.transforms.refresh_times import RefreshEvery, RefreshTimes
from pipelines.transforms.scope import Scope, group_tensors
from pipelines.transforms.transform import Figures, StepPart, Transform

# The names under which optimizers keep the running mean of gradients.
_MOMENTA = ("exp_avg", "momentum_buffer")


def keeps_momentum(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer keeps a running mean of gradients in the parameters' shape, which can be re-projected."""
    return type(optimizer).__name__ != "Adafactor" and bool(
        optimizer.defaults.get("betas") or optimizer.defaults.get("momentum")
    )


@dataclass(frozen=True)
class ProjectionSettings:
    """How a run projects.

    Attributes:
        space: ``"gradient"`` projects the reduced gradient, ``"update"`` projects the optimizer's change.
        refresh_every: the number of steps between refreshes; 0 for no refreshes, ``"auto"`` for when rows have turned.
        refresh_at_start: whether the stored rows belong to other weights than those that training starts from.
        strength: the share of the forbidden component that is removed.
        scope: which tensors share a subspace.
        momentum: ``"reproject"`` removes from the optimizer's momentum, at every refresh, its part in the new subspace.
        max_drift: for ``"auto"``, how many degrees rows may turn before they are refreshed.
    """

    space: Literal["gradient", "update"]
    refresh_every: RefreshEvery
    refresh_at_start: bool
    strength: float
    scope: Scope = "tensor"
    momentum: Literal["keep", "reproject"] = "keep"
    max_drift: float = 20.0


class Projection(Transform):
    """Projects at every optimizer step and refreshes the rows when due.

    Args:
        settings: how the run projects: space, scope, strength and refreshes.
        access: this rank's shards.
        rows: the basis: one ``[k, numel]`` tensor for each shard.
        objectives: this rank's part of every reference objective, for refreshes.
        loss_sum: the reference loss of a batch, summed over its tokens.
        left_alone: the indices of frozen tensors, whose part of the subspace must not count.
        masked: the elements that training may not move; None without a mask.
        before_batch: called before each batch of a refresh, on all ranks alike; if it raises, the refresh ends without
            a trace.
        learning_rate: gives the learning rate of the present step, the same on all ranks.
    """

    name: ClassVar[str] = "projection"
    order: ClassVar[int] = 20
    reads_gradient: ClassVar[bool] = True

    def __init__(
        self,
        settings: ProjectionSettings,
        access: ShardAccess,
        rows: Sequence[Tensor],
        objectives: Sequence[Objective],
        loss_sum: LossSum,
        *,
        left_alone: Collection[int] = (),
        masked: Masked | None = None,
        before_batch: Callable[[], None] = lambda: None,
        learning_rate: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.settings, self.access = settings, access
        self.objectives, self._loss_sum = list(objectives), loss_sum
        self._before_batch, self._learning_rate = before_batch, learning_rate
        self.refreshes = RefreshTimes(
            settings.refresh_every, at_start=settings.refresh_at_start, max_drift=settings.max_drift
        )
        self.names = [objective.name for objective in objectives]
        groups = group_tensors(access.names, settings.scope)
        self.projector = Projector(access, rows, settings.strength, groups=groups, left_alone=left_alone, masked=masked)
        self.needs_whole_step = settings.space == "update" and settings.scope != "tensor"
        self._dtype = rows[0].dtype if rows else torch.float32
        self._steps = 0
        self._gradient: Measure | None = None
        self._removed = _Sum()
        self._final = _Sum()
        self._norms: list[float] = []
        self.refresh_figures: Figures = {}
        self.layer_rows = LayerRows(self.projector.names)

    # --- Each step ---

    def on_gradient(self, gradients: Sequence[Tensor | None], *, measured: bool) -> bool:
        """Project the gradient, or in update space only measure it."""
        self._removed.clear()
        self._final.clear()
        self._norms = []
        self._steps += 1
        self.refreshes.count_step(self._learning_rate())
        if self.settings.space == "gradient":
            measure = self.projector.project_(gradients, norms=measured)
            self._gradient = measure if measured else None
            return True
        if measured:
            self._gradient = self.projector.measure(gradients)
        return False

    def keeps_weights(self, shard: int, *, measured: bool) -> bool:
        """Keep them always in update space; in gradient space only where the change is measured."""
        return measured or (self.settings.space == "update" and not self.projector.leaves_alone(shard))

    def on_change(self, part: StepPart, *, measured: bool) -> bool:
        """Project the change, in update space only."""
        if self.settings.space == "gradient":
            return False
        # A copy that is kept only for another transform belongs to a tensor that is left alone.
        changing = [
            (shard, master.weights(), before)
            for shard, master, before in zip(part.which, part.masters, part.before, strict=True)
            if before is not None and not self.projector.leaves_alone(shard)
        ]
        # The difference of close numbers is exact. It is formed piece by piece, so that no pass writes it down.
        measure = self.projector.project_(
            [weights for _, weights, _ in changing],
            [shard for shard, _, _ in changing],
            minus=[before for _, _, before in changing],
            norms=measured,
        )
        if measured:
            self._removed.add(measure)
        return True

    def observes_change(self, *, measured: bool) -> bool:
        """Observe the change in measured steps."""
        return measured

    def on_final_change(self, part: StepPart, change: Sequence[Tensor | None]) -> None:
        """Measure the change that remained."""
        self._final.add(self.projector.measure(change, part.which))
        self._norms.append(self.projector.total_norm([master.weights() for master in part.masters]))

    # --- Refresh ---

    def refresh_due(self, step: int) -> bool:
        """Whether the rows must be recomputed before optimizer step ``step`` (counted from 0)."""
        return self.refreshes.is_due(step)

    def refresh(self, optimizer: Any) -> None:
        """Recompute the rows at the present weights and re-project the optimizer's momentum where settings ask for it.

        The next log line then has ``reference_loss/NAME`` for each objective, and ``drift_degrees``: the mean principal
        angle between the old and the new rows.
        """
        result = self.compute_rows()
        rows = self.projector.masked([row.to(self._dtype) for row in result.rows])
        figures = {f"reference_loss/{name}": loss for name, loss in zip(self.names, result.losses, strict=True)}
        figures["drift_degrees"] = self._drift(rows)
        self.refreshes.refreshed(figures["drift_degrees"], self.access.device())
        self.projector.replace(rows)
        self.refresh_figures = figures
        if self.settings.momentum == "reproject" and self._steps > 0:
            self._reproject_momentum(optimizer)

    def compute_rows(self) -> ReferenceResult:
        """The reference gradients at the present weights, float32; the rows in force do not change."""
        return reference_gradients(
            self.access,
            self.access.forward,
            self._loss_sum,
            self.objectives,
            before_batch=self._before_batch,
        )

    def _reproject_momentum(self, optimizer: torch.optim.Optimizer) -> None:
        momenta = []
        for master in self.access.masters():
            state = optimizer.state.get(master.owner, {})
            key = next((key for key in _MOMENTA if isinstance(state.get(key), Tensor)), None)
            # A parameter that no loss depends on has no gradient.
            momenta.append(None if key is None else master.part_of(state[key]))
        self.projector.project_(momenta, norms=False)

    def _drift(self, rows: Sequence[Tensor]) -> float:
        projector, k = self.projector, self.projector.num_rows
        cross = torch.zeros(2, len(projector.names), k, k, dtype=torch.float64, device=self.access.device())
        for index, (old, new) in enumerate(zip(projector.rows, rows, strict=True)):
            if projector.leaves_alone(index):
                continue
            group = projector.group_of(index)
            for j in range(k):
                cross[0, group, :, j] += projection.dots(old, new[j]).to(cross.device)
            cross[1, group] += projection.gram(new).to(cross.device)
        if not self.access.replicated and self.access.world_size > 1:
            dist.all_reduce(cross)
        cosines = diagnostics.principal_angles(projector.factors, projection.inverse_factor(cross[1]), cross[0])
        kept = torch.arange(k, device=cosines.device) < projector.ranks[:, None]
        return float(torch.rad2deg(torch.acos(cosines[kept])).mean()) if bool(kept.any()) else 0.0

    # --- Going on from a checkpoint ---

    def state(self) -> dict[str, Any]:
        """The number of steps done, when to refresh, and the figures that wait for the log."""
        return {
            "steps": self._steps,
            "refreshes": self.refreshes.state(),
            "refresh_figures": self.refresh_figures,
        }

    def tensors(self) -> dict[str, Sequence[Tensor]]:
        """The rows in force."""
        return {"rows": self.projector.rows}

    def restore(self, state: dict[str, Any], tensors: dict[str, list[Tensor]]) -> None:
        """Restore steps, figures and rows; the rows keep the dtype in which the checkpoint holds them."""
        self._steps = int(state["steps"])
        self.refreshes.restore(state["refreshes"])
        self.refresh_figures = dict(state["refresh_figures"])
        self.projector.replace(tensors["rows"])

    def finish(self, directory: Path) -> dict[str, Any]:
        """The number of refreshes, for the manifest."""
        return {"refreshes": self.refreshes.count}

    # --- Figures ---

    def figures(self) -> Figures:
        """The last step's diagnostics, and those of a refresh since the last call."""
        figures: Figures = {}
        projector = self.projector
        measure = self._removed.total() if self.settings.space == "update" else self._gradient
        if self._gradient is not None:
            figures |= diagnostics.gradient_figures(self._gradient, projector, self.names)
        if measure is not None:
            shares = diagnostics.gradient_figures(measure, projector, self.names)
            figures |= {key: shares[key] for key in ("removed", "removed_random")}
            removed = diagnostics.removed_by_group(measure)
            self.layer_rows.add(self._steps, removed)
        final = self._final.total()
        if final is not None:
            figures |= diagnostics.leak_figures(final, projector, self.names, math.hypot(*self._norms))
        figures |= self.refresh_figures
        self.refresh_figures = {}
        return figures


class _Sum:
    """Measures of the parts of a step, added up."""

    def __init__(self) -> None:
        self._measures: list[Measure] = []

    def clear(self) -> None:
        self._measures = []

    def add(self, measure: Measure) -> None:
        self._measures.append(measure)

    def total(self) -> Measure | None:
        if not self._measures:
            return None

        def total(pick: Callable[[Measure], Tensor]) -> Tensor:
            return torch.stack([pick(measure) for measure in self._measures]).sum(0)

        return Measure(total(lambda m: m.inner), total(lambda m: m.squared), total(lambda m: m.removed))
