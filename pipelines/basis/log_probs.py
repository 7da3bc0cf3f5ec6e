"""Log-probabilities that a model gives to completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from data_registry.core import stopping
from pipelines.basis.passes import split_rows
from pipelines.core.job import rank, world_size
from pipelines.core.progress import Progress
from pipelines.engine import processes
from pipelines.tokens.padding import collate_pairs
from pipelines.tokens.pairs import Pair

if TYPE_CHECKING:
    from torch import Tensor


def completion_log_probs(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities of the chosen and of the rejected completions, each ``[B]`` float32.

    Args:
        model: with the loss head (``pipelines.basis.objectives.add_loss_head``).
        batch: from :func:`collate_pairs`.
    """
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    log_probs = model(**inputs, use_cache=False, fused_lm_head=True).log_probs.float().sum(1)
    chosen, rejected = log_probs.chunk(2)
    return chosen, rejected


def completion_values(
    forward: Any,
    module: torch.nn.Module,
    pairs: Sequence[Pair],
    batch_size: int,
    pad_token_id: int,
    device: torch.device,
) -> list[tuple[float, float]]:
    """(chosen, rejected) log-probabilities of all pairs, in their order, computed by all ranks together."""
    order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index]["chosen_ids"]))
    parts = list(split_rows(order, batch_size, rank(), world_size()))
    mine: list[tuple[int, float, float]] = []
    module.eval()
    progress = Progress("reference log-probs", total=len(parts), unit="batches")
    with torch.no_grad(), stopping.deferred(), progress:
        for indices, weight in parts:
            processes.stop_point(device)
            batch = collate_pairs([pairs[index] for index in indices], pad_token_id)
            chosen, rejected = completion_log_probs(forward, {key: value.to(device) for key, value in batch.items()})
            if weight:
                mine += list(zip(indices, chosen.tolist(), rejected.tolist(), strict=True))
            progress.advance()
        # Whoever was asked during the last batch.
        processes.stop_point(device)
    everything = [mine]
    if world_size() > 1:
        gathered: list[Any] = [None] * world_size()
        dist.all_gather_object(gathered, mine)
        everything = gathered
    by_index = {index: (chosen, rejected) for part in everything for index, chosen, rejected in part}
    return [by_index[index] for index in range(len(pairs))]
