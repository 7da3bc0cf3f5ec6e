"""What a model expects at each place of an answer: its most likely tokens, and all others in one bucket.

Shapes: T places, K most likely tokens, V tokens of the vocabulary. A place is the position before a labelled token,
which is the position whose logits predict that token.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from pipelines.tokens.labels import IGNORED

# The number of logits that a forward pass may give at once: 2^27 of them are 512 MiB in float32.
_MAX_LOGITS: Final = 1 << 27


@dataclass(frozen=True)
class TopLogProbs:
    """A distribution over tokens at each of T places.

    Attributes:
        ids: int64 ``[T, K]``, the most likely tokens, most likely first.
        log_probs: float32 ``[T, K]``, their log-probabilities.
        rest: float32 ``[T]``, the log-probability of all other tokens together; minus infinity where there are none.
    """

    ids: Tensor
    log_probs: Tensor
    rest: Tensor


def together(parts: Sequence[TopLogProbs], device: torch.device) -> TopLogProbs:
    """Distributions over as many tokens each, one after the other, on a device."""
    return TopLogProbs(
        torch.cat([part.ids for part in parts]).to(device),
        torch.cat([part.log_probs for part in parts]).to(device),
        torch.cat([part.rest for part in parts]).to(device),
    )


def top_log_probs(logits: Tensor, k: int) -> TopLogProbs:
    """The k most likely tokens at each place.

    Args:
        logits: ``[T, V]``, any float dtype.
        k: the number of tokens to keep; more than V keeps all V.
    """
    log_probs = logits.float().log_softmax(-1)
    kept, ids = log_probs.topk(min(k, logits.shape[-1]), dim=-1)
    # The rest is summed from its own terms: one minus the sum of the others would be rounding where they are most.
    return TopLogProbs(ids, kept, log_probs.scatter(-1, ids, -torch.inf).logsumexp(-1))


def forward_kl(start: TopLogProbs, logits: Tensor) -> Tensor:
    """KL divergence from what is stored of a starting model to a model, at each place.

    ``sum_k p0_k (log p0_k - log p_k) + r0 (log r0 - log r)``, where r0 and r are the probabilities of all tokens that
    are not among the K. It is the KL divergence itself where K = V, and never more where tokens share the
    bucket.

    Args:
        start: the starting model's distributions.
        logits: ``[T, V]`` of the model, any float dtype; gradients flow to them.

    Returns:
        float32 ``[T]``.
    """
    log_probs = logits.float().log_softmax(-1)
    kept = log_probs.gather(-1, start.ids)
    divergence = (start.log_probs.exp() * (start.log_probs - kept)).sum(-1)
    if start.ids.shape[-1] == logits.shape[-1]:
        return divergence
    rest = log_probs.scatter(-1, start.ids, -torch.inf).logsumexp(-1)
    # A bucket that holds nothing adds nothing; its logarithm is minus infinity.
    holds_some = start.rest > -torch.inf
    difference = torch.where(holds_some, start.rest - rest, 0.0)
    return divergence + start.rest.exp() * difference


def places_of(labels: Sequence[int]) -> list[int]:
    """The positions whose logits predict a labelled token, ascending."""
    return [index - 1 for index, label in enumerate(labels) if index > 0 and label != IGNORED]


def batches_by_size(sizes: Sequence[int], batch_size: int, vocabulary: int) -> list[list[int]]:
    """Indices of rows in batches of like length, longest first, so that no forward pass gives too many logits.

    Args:
        sizes: the number of tokens of each row.
        batch_size: most rows of a batch.
        vocabulary: the number of logits at each position.
    """
    order = sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))
    batches: list[list[int]] = []
    for index in order:
        last = batches[-1] if batches else None
        fits = last is not None and len(last) < batch_size
        if last is not None and fits and (len(last) + 1) * sizes[last[0]] * vocabulary <= _MAX_LOGITS:
            last.append(index)
        else:
            batches.append([index])
    return batches


def row_distributions(model: Any, rows: Sequence[tuple[Sequence[int], Sequence[int]]], k: int) -> list[TopLogProbs]:
    """What a model expects at all places of one batch of rows; without gradients.

    Args:
        model: a causal language model of transformers in evaluation mode.
        rows: for each row its token ids and its labels, of the same length.
        k: the number of tokens to keep.

    Returns:
        For each row its distributions on the CPU, at the positions that :func:`places_of` gives.
    """
    places = [places_of(labels) for _, labels in rows]
    # Padding on the right: a causal model's logits at the row's own positions do not see it.
    longest = max(len(ids) for ids, _ in rows)
    ids_BL = torch.zeros((len(rows), longest), dtype=torch.int64)
    mask_BL = torch.zeros_like(ids_BL)
    for row, (ids, _) in enumerate(rows):
        ids_BL[row, : len(ids)] = torch.tensor(ids)
        mask_BL[row, : len(ids)] = 1
    wanted = sorted({place for row in places for place in row})
    column = {place: index for index, place in enumerate(wanted)}
    keep = {"logits_to_keep": torch.tensor(wanted, device=model.device)} if _keeps_some(model) else {}
    with torch.inference_mode():
        logits = model(
            input_ids=ids_BL.to(model.device), attention_mask=mask_BL.to(model.device), use_cache=False, **keep
        ).logits
        found = []
        for row, of_row in enumerate(places):
            columns = [column[place] for place in of_row] if keep else of_row
            top = top_log_probs(logits[row, columns], k)
            found.append(TopLogProbs(top.ids.cpu(), top.log_probs.cpu(), top.rest.cpu()))
    return found


def _keeps_some(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters
