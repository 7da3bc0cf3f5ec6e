"""Building a basis in memory, from a model and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch.distributed as dist

from data_registry.core.errors import ConfigError
from pipelines.api.basis import OWN_LOSS, Basis, describe, headed, record_of
from pipelines.api.batches import Batches, batch_sets
from pipelines.api.models import bare_model, takes_loss_head
from pipelines.basis.objectives.tokens import token_loss_sum
from pipelines.basis.storage import DTYPES
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.passes.gradients import Batch, LossSum, reference_gradients


def build_basis(
    model: Any,
    batches: Batches,
    *,
    loss: LossSum | None = None,
    units: Callable[[Batch], float] | None = None,
    dtype: Literal["fp32", "bf16"] = "fp32",
) -> Basis:
    """Compute the reference gradients of a model at its present weights: one row for each set of batches.

    Nothing of the model changes: neither weights and gradients nor modes, hooks and random numbers. Dropout is off.
    Under several ranks (``torch.distributed``) every rank gives the same batches; ranks share the work, and every rank
    gets the whole basis.

    Args:
        model: a causal language model of transformers, also with PEFT's adapters or in DistributedDataParallel; any
            ``torch.nn.Module`` with a ``loss`` of yours. Parameters with ``requires_grad`` get rows.
        batches: an iterable of batches, or a dict of name to batches, one row each. A batch is a dict of tensors as the
            model takes them, with ``input_ids``, ``attention_mask`` and ``labels`` ``[rows, length]``, the labels -100
            where a token is not an answer. All batches are kept in the basis, for refreshes.
        loss: ``loss(model, batch)``: the loss summed over the batch's units, a float32 scalar; by default the
            cross-entropy of the labelled tokens.
        units: ``units(batch)``: the number of units that the row is the mean over; by default the labelled tokens.
        dtype: the number format of the rows.

    Returns:
        The basis. For the same batches in the same order its rows are those of ``ogpsa build-basis``, bit for bit.

    Raises:
        ConfigError: an argument is unknown, or the model needs a loss.
        InputError: a batch cannot be used, or nothing of the model is trained.
        EngineError: the model's parameters are spread over ranks.
        NumericsError: a gradient is not finite.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}, and should be one of: {', '.join(map(repr, DTYPES))}")
    bare = bare_model(model)
    if loss is None and not takes_loss_head(bare):
        raise ConfigError(
            f"{type(bare).__name__} is no causal language model of transformers, so that its loss is not known",
            fix="give one:  build_basis(model, batches, loss=lambda model, batch: ..., units=lambda batch: ...)",
        )
    sets = batch_sets(batches, own_loss=loss is not None, units=units)
    access = ReplicatedAccess(bare)
    rank = dist.get_rank() if access.world_size > 1 else 0
    used = loss if loss is not None else headed(token_loss_sum)
    objectives = [each.objective(rank, access.world_size) for each in sets]
    result = reference_gradients(access, access.forward, used, objectives)
    rows = {name: row.to(DTYPES[dtype]) for name, row in zip(access.names, result.rows, strict=True)}
    kind = "sft" if loss is None else OWN_LOSS
    records = [record_of(each, kind, value) for each, value in zip(sets, result.losses, strict=True)]
    # Later batches may hold more rows that are shorter.
    first = max(len(next(iter(each.batches[0].values()))) for each in sets)
    return Basis(describe(access, rows, records, model, batch_size=first), rows, sets=sets, loss=used)
