"""Reference gradients: the mean gradient of each objective at the present weights, computed through the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.engine.shards.access import ShardAccess

Batch = Mapping[str, Tensor]
LossSum = Callable[[Any, Batch], Tensor]


@dataclass(frozen=True)
class Objective:
    """One reference objective as this rank sees it.

    Attributes:
        name: the objective's name in logs and the manifest.
        batches: this rank's batches, as many as on every other rank.
        weights: the weight of each batch: 1, or 0 for a batch that only keeps the ranks in step.
        total: the number of units (answer tokens or pairs) over all ranks; the objective is the mean over them.
    """

    name: str
    batches: Sequence[Batch]
    weights: Sequence[float]
    total: float


@dataclass(frozen=True)
class ReferenceResult:
    """Rows and losses of one reference pass.

    Attributes:
        rows: one ``[k, numel]`` float32 tensor for each shard.
        losses: the mean loss of each objective, over all ranks.
    """

    rows: list[Tensor]
    losses: list[float]


def reference_gradients(
    access: ShardAccess,
    model: Any,
    loss_sum: LossSum,
    objectives: Sequence[Objective],
    *,
    before_batch: Callable[[], None] = lambda: None,
) -> ReferenceResult:
    """Compute the mean gradient of every objective at the present weights, leaving no trace in the training state.

    Args:
        access: this rank's shards.
        model: the callable for the forward pass: the engine, or the bare model.
        loss_sum: gives the sum of the loss over a batch's units, a float32 scalar.
        objectives: the reference objectives; the same names and numbers of batches on every rank.
        before_batch: called before each batch, on all ranks alike; if it raises, the passes end without a trace.

    Returns:
        the rows, in the order of ``access.shards``, and the objectives' losses.
    """
    device = access.device()
    rows = [torch.zeros(len(objectives), shard.numel, device=access.rows_device()) for shard in access.shards]
    sums = torch.zeros(len(objectives), dtype=torch.float64, device=device)
    with access.untraced():
        for j, objective in enumerate(objectives):
            into = [row[j] for row in rows]
            for index, (batch, weight) in enumerate(zip(objective.batches, objective.weights, strict=True)):
                before_batch()
                placed = {key: value.to(device) for key, value in batch.items()}
                loss = loss_sum(model, placed)
                sums[j] += weight * loss.detach().double()
                # The engines average over ranks; the objective is a sum over ranks divided by the total.
                scaled = loss * (weight * access.world_size / objective.total)
                access.accumulate(scaled, last=index == len(objective.batches) - 1, into=into)
    if access.world_size > 1:
        dist.all_reduce(sums)
    return ReferenceResult(
        rows, [float(value) / objective.total for value, objective in zip(sums, objectives, strict=True)]
    )
