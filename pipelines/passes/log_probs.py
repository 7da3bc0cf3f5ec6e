"""Log-probabilities that a model gives to labelled tokens, one by one, and summed over completions.

Position i of a result belongs to token i + 1, since no token stands before the first one to predict it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from trl.trainer.utils import add_fused_lm_head

from data_registry.core import stopping
from pipelines.core.job import rank, world_size
from pipelines.core.progress import Progress
from pipelines.engine import processes
from pipelines.engine.shards.access import is_partitioned
from pipelines.passes.dealing import deal_tokens
from pipelines.passes.states import bare_model, can_narrow, states_narrowed
from pipelines.passes.tiled_head import CrossEntropy, Head, sum_at_places
from pipelines.tokens.labels import IGNORED
from pipelines.tokens.padding import collate_completions
from pipelines.tokens.pairs import SIDES, Pair

Numbers = npt.NDArray[np.float32]

# The number of logits that are held in float32 at once: 2^25 of them are 128 MiB.
_MAX_LOGITS: Final = 1 << 25
# Where the vocabulary is not a multiple of four, kernels sum a row according to its alignment. A chunk of so many
# positions is aligned as the whole is, so that no value depends on the chunk's size.
_ALIGNED_POSITIONS: Final = 64


def add_loss_head(model: nn.Module) -> None:
    """Let ``model(..., labels=..., fused_lm_head=True)`` give per-token log-probabilities without whole logits.

    TRL's trainers do the same to their models, so that reference and training passes use one head.
    """
    add_fused_lm_head(model)


def token_log_probs(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a batch's labelled tokens, without whole logits, forwards and backwards.

    They come from the loss head that TRL gives its models. Without gradients, on a processor and in float32, they are
    computed as those of :func:`token_loss_sum` are.

    Args:
        model: with the loss head (:func:`add_loss_head`).
        batch: the model's inputs, with ``input_ids`` and ``labels`` ``[rows, length]`` int64.

    Returns:
        ``[rows, length - 1]`` float32, zero where a token is not labelled; and ``[rows, length - 1]`` bool, whether it
        is. A batch without labels gives a zero that can be differentiated.
    """
    targets = batch["labels"][:, 1:]
    labelled = targets != IGNORED
    given = {key: value for key, value in batch.items() if key != "labels"}
    options = {"use_cache": False, "fused_lm_head": True}
    if not can_narrow(model):
        outputs = model(**given, labels=batch["labels"], **options)
        return outputs.log_probs.float(), outputs.label_mask
    if not torch.is_grad_enabled() and _head_is_ours(model, batch["labels"]):
        # From zero, since what is certain would be -0.0.
        values = 0.0 - _head_of_ours(model, batch)[1].float()
        return values.new_zeros(labelled.shape).masked_scatter(labelled, values), labelled
    # Without Triton the head computes at every position it is given, prompts and padding included.
    with states_narrowed(model, lambda states: states[:, :-1][labelled][None]):
        outputs = model(**given, shift_labels=targets[labelled][None], **options)
    values = outputs.log_probs.float()
    # Scattered as a whole, so that a batch without labels still hangs on the model.
    return values.new_zeros(labelled.shape).masked_scatter(labelled, values), labelled


def token_loss_sum(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Minus the sum of the log-probabilities of a batch's labelled tokens.

    Without its kernels the loss head computes all logits a second time in the backward pass. Here the head's gradients
    are computed together with its values, at the places of labelled tokens alone.

    Args:
        model: with the loss head (:func:`add_loss_head`).
        batch: as :func:`token_log_probs` takes it.

    Returns:
        a float32 scalar that can be differentiated, also where nothing is labelled.
    """
    if not _head_is_ours(model, batch["labels"]):
        return -token_log_probs(model, batch)[0].sum()
    return _head_of_ours(model, batch)[0].float()


def _head_of_ours(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Minus the log-probabilities of a batch's labelled tokens: their sum, and each ``[T]`` without gradients."""
    targets = batch["labels"][:, 1:]
    labelled = targets != IGNORED
    found: list[tuple[Tensor, Tensor]] = []

    def narrow(states: Tensor) -> Tensor:
        kept = states[:, :-1][labelled]
        found.append(sum_at_places(kept, Head.of(bare_model(model)), CrossEntropy(targets[labelled])))
        # Nothing is left for the loss head.
        return states[:, :0]

    given = {key: value for key, value in batch.items() if key != "labels"}
    with states_narrowed(model, narrow):
        model(**given, shift_labels=targets[:, :0], use_cache=False, fused_lm_head=True)
    return found[0]


def _head_is_ours(model: Any, labels: Tensor) -> bool:
    """Whether the head is ours to compute: on a processor, in float32 at least, and not shared out among ranks.

    In bf16 a logit's rounding depends on how many are computed at once, and rows shall differ from training's gradients
    by as little as they can. Under ZeRO 3 the head is gathered for backward passes from the model's own outputs alone.
    """
    if labels.device.type != "cpu" or not can_narrow(model):
        return False
    bare = bare_model(model)
    wide = bare.get_output_embeddings().weight.dtype in (torch.float32, torch.float64)
    return wide and not is_partitioned(bare)


def label_log_probs(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of labelled tokens from the logits of a model without the loss head.

    Only labelled positions are converted to float32, a bounded number at once. With gradients every position keeps its
    probabilities for the backward pass: use :func:`token_log_probs` for training.

    Args:
        logits: ``[rows, length, vocabulary]``, any float dtype.
        labels: ``[rows, length]`` int64, on the same device.

    Returns:
        the same two tensors as :func:`token_log_probs`.
    """
    targets = labels[:, 1:]
    labelled = targets != IGNORED
    log_probs = torch.zeros(targets.shape, dtype=torch.float32, device=logits.device)
    chunk = max(1, _MAX_LOGITS // logits.shape[-1] // _ALIGNED_POSITIONS) * _ALIGNED_POSITIONS
    rows, positions = labelled.nonzero(as_tuple=True)
    for row, position in zip(rows.split(chunk), positions.split(chunk), strict=True):
        log_probs[row, position] = -functional.cross_entropy(
            logits[row, position].float(), targets[row, position], reduction="none"
        )
    return log_probs, labelled


def completion_log_probs(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities of the chosen and of the rejected completions, each ``[B]`` float32.

    Args:
        model: with the loss head (:func:`add_loss_head`).
        batch: a batch that :func:`pipelines.tokens.padding.collate_pairs` made.
    """
    rows = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    log_probs, _ = token_log_probs(model, rows)
    chosen, rejected = log_probs.sum(1).chunk(2)
    return chosen, rejected


@dataclass(frozen=True)
class PairLogProbs:
    """Log-probabilities of the completions of a pair that are asked for, the chosen one first.

    Attributes:
        sums: their sums over a completion.
        tokens: float32 ``[tokens]`` of each completion; None where only sums are asked for.
    """

    sums: tuple[float, ...]
    tokens: tuple[Numbers, ...] | None = None


def completion_values(
    forward: Any,
    module: torch.nn.Module,
    pairs: Sequence[Pair],
    batch_size: int,
    pad_token_id: int,
    device: torch.device,
) -> list[tuple[float, float]]:
    """(chosen, rejected) log-probabilities of all pairs, in their order, computed by all ranks together."""
    found = _of_all(forward, module, pairs, batch_size, pad_token_id, device, SIDES, per_token=False)
    return [(each.sums[0], each.sums[1]) for each in found]


def completion_token_values(
    forward: Any,
    module: torch.nn.Module,
    pairs: Sequence[Pair],
    batch_size: int,
    pad_token_id: int,
    device: torch.device,
    sides: Sequence[str] = SIDES,
) -> list[PairLogProbs]:
    """As :func:`completion_values`, with those of single tokens; the sums of both sides have the same bits."""
    return _of_all(forward, module, pairs, batch_size, pad_token_id, device, sides, per_token=True)


def _of_all(
    forward: Any,
    module: torch.nn.Module,
    pairs: Sequence[Pair],
    batch_size: int,
    pad_token_id: int,
    device: torch.device,
    sides: Sequence[str],
    *,
    per_token: bool,
) -> list[PairLogProbs]:
    """The values of all pairs, in their order, computed by all ranks together.

    Completions go through the model by themselves, those of like length together: the two of a pair often differ.
    """
    rows = [(index, side) for index in range(len(pairs)) for side in sides]

    def length(row: tuple[int, str]) -> int:
        index, side = row
        return len(pairs[index]["prompt_ids"]) + len(pairs[index][f"{side}_ids"])

    size = batch_size * len(sides)
    parts = list(deal_tokens(rows, size, length=length, rank=rank(), world_size=world_size()))
    mine: list[tuple[tuple[int, str], tuple[float, Numbers | None]]] = []
    module.eval()
    progress = Progress("reference log-probs", total=len(parts), unit="batches")
    with torch.no_grad(), stopping.deferred(), progress:
        for part, weight in parts:
            processes.stop_point(device)
            batch = collate_completions([(pairs[i]["prompt_ids"], pairs[i][f"{s}_ids"]) for i, s in part], pad_token_id)
            log_probs, labelled = token_log_probs(forward, {key: value.to(device) for key, value in batch.items()})
            sums = log_probs.sum(1).tolist()
            tokens: Sequence[Numbers | None] = [None] * len(part)
            if per_token:
                both = zip(log_probs.cpu(), labelled.cpu(), strict=True)
                tokens = [of_row[inside].numpy().copy() for of_row, inside in both]
            if weight:
                mine += list(zip(part, zip(sums, tokens, strict=True), strict=True))
            progress.advance()
        # A signal to stop may have arrived during the last batch.
        processes.stop_point(device)
    everything = [mine]
    if world_size() > 1:
        gathered: list[Any] = [None] * world_size()
        dist.all_gather_object(gathered, mine)
        everything = gathered
    found = {row: values for of_rank in everything for row, values in of_rank}
    return [_pair([found[index, side] for side in sides]) for index in range(len(pairs))]


def _pair(values: Sequence[tuple[float, Numbers | None]]) -> PairLogProbs:
    tokens = tuple(of_side for _, of_side in values if of_side is not None)
    return PairLogProbs(tuple(total for total, _ in values), tokens or None)
