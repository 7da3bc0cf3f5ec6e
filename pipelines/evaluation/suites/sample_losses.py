"""The mean token loss of a model on given answers, sample by sample.

Shapes: B samples of a batch, L tokens, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_registry.core.errors import NumericsError
from pipelines.models.limits import limits_of_model
from pipelines.tokens.labels import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# Logits are the largest tensor by far: 2^27 of them are 0.5 GB in float32.
_MAX_LOGITS = 1 << 27
# What another pass costs by itself, in tokens. On accelerators it is an estimate: launching the kernels of a small
# model takes some 20 ms, in which a large one computes thousands of tokens.
_PASS_IN_TOKENS = {"cpu": 128}
_PASS_ELSEWHERE = 4096


@dataclass(frozen=True)
class SampleLoss:
    """The loss of one sample: summed over its answer tokens, in nats, and how many these are."""

    total: float
    num_tokens: int


def sample_losses(
    model: PreTrainedModel,
    samples: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> list[SampleLoss]:
    """Negative log-likelihood of the labelled tokens of each sample.

    Logits are taken to float32 before the log-softmax, whatever the model computes in; sums are float64. Samples of
    like length share a batch, and batches of long samples are smaller, so that memory stays bounded.

    Args:
        model: a causal language model; put into evaluation mode, and back afterwards.
        samples: ``(input_ids, labels)`` of equal length; the token at position i is predicted from those before it and
            counts where ``labels[i]`` is not ``IGNORED``. Position 0 never counts.
        batch_size: most samples in one forward pass.
        progress: called with the number of samples done since the last call.

    Returns:
        One loss for each sample, in the order given.

    Raises:
        ValueError: ``batch_size`` is below 1, or a sample has no labelled token.
        NumericsError: a loss is not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    losses: list[SampleLoss | None] = [None] * len(samples)
    was_training = model.training
    model.eval()
    try:
        # The shortest sample says whether the head can be applied to the answers' places alone.
        shortest = min(range(len(samples)), key=lambda index: len(samples[index][0]), default=None)
        narrow = shortest is not None and _head_can_be_narrowed(model, samples[shortest])
        lengths = [len(ids) for ids, _ in samples]
        padding = _PASS_IN_TOKENS.get(model.device.type, _PASS_ELSEWHERE)
        for batch in _batches(lengths, batch_size, _vocabulary(model), padding):
            totals, counts = _batch_losses(model, [samples[index] for index in batch], narrow=narrow)
            for index, total, count in zip(batch, totals.tolist(), counts.tolist(), strict=True):
                losses[index] = _checked(index, total, count)
            if progress is not None:
                progress(len(batch))
    finally:
        model.train(was_training)
    return [loss for loss in losses if loss is not None]


def mean_token_loss(losses: Sequence[SampleLoss]) -> float:
    """Mean over all tokens of all samples, in nats: long answers weigh more, as in training."""
    return sum(loss.total for loss in losses) / sum(loss.num_tokens for loss in losses)


def _checked(index: int, total: float, count: int) -> SampleLoss:
    if count == 0:
        raise ValueError(f"sample {index} has no labelled token")
    loss = SampleLoss(total, count)
    if not (-float("inf") < total < float("inf")):
        raise NumericsError(
            f"the loss of the model is {total} on sample {index}",
            where=f"{count} answer tokens",
            fix="look at the run that made the model: it has diverged; or evaluate with --precision fp32",
        )
    return loss


def _batches(lengths: Sequence[int], batch_size: int, vocabulary: int, padding: int) -> Iterator[list[int]]:
    """Indices of samples of like length, longest first, so that memory runs out at once or not at all.

    A batch ends before its padding is more than ``padding`` tokens, which is what another pass costs.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        size = min(batch_size, max(1, _MAX_LOGITS // (longest * vocabulary)))
        room = padding
        for end, index in enumerate(order[start : start + size], start):
            room -= longest - lengths[index]
            if room < 0:
                size = end - start
                break
        yield order[start : start + size]
        start += size


def _vocabulary(model: PreTrainedModel) -> int:
    """The number of logits of one token."""
    return limits_of_model(model).num_embeddings or 1


def _batch_losses(
    model: PreTrainedModel, samples: Sequence[tuple[Sequence[int], Sequence[int]]], *, narrow: bool
) -> tuple[Tensor, Tensor]:
    """Summed losses (float64) and counts of labelled tokens (int64), both ``[B]`` on the CPU.

    Args:
        model: the model, in evaluation mode.
        samples: the samples of one batch.
        narrow: whether the head is applied to the places of labelled tokens alone.
    """
    import torch

    from pipelines.passes.log_probs import label_log_probs

    longest = max(len(ids) for ids, _ in samples)
    input_ids_BL = torch.zeros(len(samples), longest, dtype=torch.long)
    attention_BL = torch.zeros_like(input_ids_BL)
    labels_BL = torch.full_like(input_ids_BL, IGNORED)
    for row, (ids, labels) in enumerate(samples):
        # Padding is on the right, where a causal model cannot see it; the mask is for models that count positions.
        input_ids_BL[row, : len(ids)] = torch.tensor(ids)
        attention_BL[row, : len(ids)] = 1
        labels_BL[row, : len(ids)] = torch.tensor(labels)
    device = model.device
    labels_BL = labels_BL.to(device)
    batch = {"input_ids": input_ids_BL.to(device), "attention_mask": attention_BL.to(device)}
    with torch.no_grad():
        if narrow:
            log_probs_BL, counted_BL = _at_labels(model, batch, labels_BL)
        else:
            log_probs_BL, counted_BL = label_log_probs(model(**batch, use_cache=False).logits, labels_BL)
        # Taken from zero, since a loss of nothing negated would be written as -0.0.
        return (0.0 - log_probs_BL.double().sum(dim=1)).cpu(), counted_BL.sum(dim=1).cpu()


def _at_labels(model: PreTrainedModel, batch: dict[str, Tensor], labels_BL: Tensor) -> tuple[Tensor, Tensor]:
    """What ``label_log_probs`` gives, without the logits of prompts and padding."""
    from pipelines.passes.states import pass_for_states
    from pipelines.passes.tiled_head import CrossEntropy, Head, sum_at_places

    targets = labels_BL[:, 1:]
    labelled = targets != IGNORED
    losses: list[Tensor] = []

    def look(states: Tensor) -> None:
        places = states[:, :-1][labelled]
        losses.append(sum_at_places(places, Head.of(model), CrossEntropy(targets[labelled]))[1])

    pass_for_states(model, model, batch, look)
    return losses[0].new_zeros(labelled.shape).masked_scatter(labelled, -losses[0]), labelled


def _head_can_be_narrowed(model: PreTrainedModel, sample: tuple[Sequence[int], Sequence[int]]) -> bool:
    """Whether a model's logits are those of its head at its last states: asked of one sample, in both ways."""
    import torch

    from data_registry.core.errors import ConfigError
    from pipelines.passes.states import can_narrow, keeps_logits

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if type(head) is not torch.nn.Linear or not can_narrow(model) or not keeps_logits(model):
        return False
    try:
        (whole, _), (narrow, _) = (_batch_losses(model, [sample], narrow=each) for each in (False, True))
    except ConfigError:
        # Some models call an inner part of themselves, so that nobody sees their last states.
        return False
    # Losses of 16 bits differ by the rounding of each logit.
    tolerance = 1e-4 if head.weight.dtype in (torch.float32, torch.float64) else 1e-2
    return bool((narrow - whole).abs().max() <= tolerance * whole.abs().max())
