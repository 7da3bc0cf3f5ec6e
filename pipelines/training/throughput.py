"""How fast a run trains: tokens a second, and on GPUs whose peak is known the share of it that is used (MFU).

The time is that of optimizer steps from fetching their rows to the optimizer's end, refreshes of a basis included;
measuring held-out rows, answers of the model and checkpoints are not in it. Tokens are those of forward passes that
train, anchors included, without padding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.core.job import world_size
from pipelines.models.training_cost import TrainingCost

_Sums = list[float]


class Throughput:
    """Counts the tokens of this rank, and gives figures over all ranks.

    Args:
        cost: the operations that tokens cost; None where MFU is not wanted.
        peak: the most operations a second of a rank's device; None where it is not known.
    """

    def __init__(self, cost: TrainingCost | None, peak: float | None) -> None:
        self._cost, self._peak = cost, peak
        self._counts: list[Tensor] = []
        self._began: float | None = None
        # Tokens, pairs of tokens, seconds: since the last log, and before it.
        self._recent, self._earlier = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]

    def watch(self, model: Any) -> None:
        """Count what a model trains on from now on: its forward passes in training mode that keep gradients."""

        def note(module: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
            if module.training and torch.is_grad_enabled():
                self.count({**kwargs, **({"input_ids": args[0]} if args else {})})

        model.register_forward_pre_hook(note, with_kwargs=True)

    def count(self, inputs: Mapping[str, Any]) -> None:
        """Count a batch: tokens, and pairs of tokens that share a sequence; nothing is waited for on a device."""
        if isinstance(inputs.get("input_ids"), Tensor):
            self._counts.append(counts(inputs))

    def begin_step(self) -> None:
        """A step begins: its rows are about to be fetched."""
        self._began = time.monotonic()

    def end_step(self) -> None:
        """The optimizer has done the step."""
        if self._began is not None:
            self._recent[2] += time.monotonic() - self._began
            self._began = None

    def recent(self) -> dict[str, float]:
        """The figures since the last call. Collective."""
        self._gather_counts()
        recent, self._recent = self._recent, [0.0, 0.0, 0.0]
        self._earlier = [before + new for before, new in zip(self._earlier, recent, strict=True)]
        return self._figures(recent)

    def overall(self) -> dict[str, float]:
        """The figures of the whole run, the part before it was resumed included. Collective."""
        figures = self._figures(self.state(), counted=True)
        return {f"train_{name}": value for name, value in figures.items()}

    def state(self) -> _Sums:
        """This rank's tokens, pairs and seconds so far."""
        self._gather_counts()
        return [before + new for before, new in zip(self._earlier, self._recent, strict=True)]

    def restore(self, parts: Sequence[_Sums] | None, mine: int | None) -> None:
        """Go on from the state of a run that was stopped.

        Args:
            parts: the states of its ranks; None where it kept none.
            mine: the number of this rank; None where there were others than now, which all then share alike.
        """
        if not parts:
            return
        if mine is not None:
            self._earlier = list(parts[mine])
            return
        tokens, pairs, seconds = (sum(part[index] for part in parts) for index in range(3))
        self._earlier = [tokens / world_size(), pairs / world_size(), seconds / len(parts)]

    def _gather_counts(self) -> None:
        if self._counts:
            tokens, pairs = torch.stack(self._counts).sum(0).tolist()
            self._recent[0] += tokens
            self._recent[1] += pairs
            self._counts.clear()

    def _figures(self, sums: _Sums, *, counted: bool = False) -> dict[str, float]:
        tokens, pairs, seconds = over_all_ranks(sums)
        seconds /= world_size()
        if seconds <= 0 or tokens <= 0:
            return {}
        figures = {"tokens": tokens} if counted else {}
        figures["tokens_per_second"] = tokens / seconds
        if world_size() > 1:
            figures["tokens_per_second_per_rank"] = figures["tokens_per_second"] / world_size()
        if self._cost is not None and self._peak is not None:
            figures["mfu"] = self._cost.of(tokens, pairs) / (seconds * self._peak * world_size())
        return figures


def over_all_ranks(values: Sequence[float]) -> list[float]:
    """The sums of numbers over all ranks, in float64. Collective."""
    if world_size() == 1:
        return list(values)
    placed = torch.tensor(values, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(placed)
    return [float(total) for total in placed.tolist()]


def counts(inputs: Mapping[str, Any]) -> Tensor:
    """The tokens of a batch without padding, and the pairs of tokens that share a sequence.

    Args:
        inputs: ``input_ids`` ``[B, L]`` with an ``attention_mask`` ``[B, L]`` where rows are padded, or with
            ``position_ids`` ``[B, L]`` that begin at 0 with each of several sequences in a row.

    Returns:
        ``[2]`` float64, on the batch's device.
    """
    ids_BL = inputs["input_ids"]
    mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
    if isinstance(mask, Tensor) and mask.shape == ids_BL.shape:
        lengths = mask.sum(1).double()
    elif isinstance(positions, Tensor) and positions.shape == ids_BL.shape:
        starts = (positions.flatten() == 0).nonzero().flatten()
        lengths = torch.diff(starts, append=starts.new_tensor([ids_BL.numel()])).double()
    else:
        lengths = torch.full((ids_BL.shape[0],), float(ids_BL.shape[1]), dtype=torch.float64, device=ids_BL.device)
    return torch.stack([lengths.sum(), lengths.square().sum()])
