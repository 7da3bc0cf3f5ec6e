"""The anchor's loss: rows held by divergence from the starting model or by cross-entropy, with a mean of their own.

For the R rows of an optimizer step, over all ranks and accumulated batches, with N places in all:
``weight * sum over the places of KL(start || model) / N``, or of minus the log-probability of the next token. N is
known beforehand from the rows, so that nothing is exchanged between ranks and the loss does not depend on how a step is
cut into batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from pipelines.configs.train import TrainConfig
from pipelines.core.job import rank, world_size
from pipelines.passes.distributions import TopLogProbs, forward_kl
from pipelines.tokens.fitting import Bounds
from pipelines.training.data.anchors import AnchorRow, AnchorRows, AnchorSchedule, part_of, rows_per_step


class Anchor:
    """The anchor of a run.

    Args:
        rows: the rows.
        schedule: which rows belong to which step.
        kind: ``"kl"`` or ``"ce"``.
        weight: the weight of the loss.
        pad_token_id: the id of the token that pads batches.
    """

    def __init__(
        self, rows: AnchorRows, schedule: AnchorSchedule, *, kind: str, weight: float, pad_token_id: int
    ) -> None:
        self._rows, self._schedule = rows, schedule
        self._kind, self._weight, self._pad = kind, weight, pad_token_id

    def loss(self, model: Any, *, step: int, batch: int, num_batches: int) -> tuple[Tensor, dict[str, float]]:
        """This forward pass's part of the step's anchor loss, to be added to the loss of its safety rows. Collective.

        The parts of all ranks and accumulated batches sum up to the loss of the step.

        Args:
            model: the model as the trainer calls it.
            step: the number of the optimizer step, from 0.
            batch: the number of the accumulated batch within the step, from 0.
            num_batches: the number of accumulated batches of the step.

        Returns:
            The part, a float32 scalar; and figures whose mean over the batches of a step is the mean loss at a place,
            without the weight, and the number of places.
        """
        numbers = self._schedule.step(step)
        mine, share = part_of(numbers, batch * world_size() + rank(), num_batches * world_size())
        rows = [self._rows[number] for number in mine]
        total = share * self._sum_over(rows, self._logits(model, rows))
        whole = sum(map(self._rows.num_places, numbers))
        # Trainers log the mean over batches, which is the mean over steps of these.
        seen = torch.stack([total.detach(), total.new_tensor(share * sum(map(self._rows.num_places, mine)))])
        if world_size() > 1:
            dist.all_reduce(seen)
        loss, places = (num_batches * seen).tolist()
        return self._weight * total / whole, {f"anchor/{self._kind}": loss / whole, "anchor/tokens": places}

    def _logits(self, model: Any, rows: Sequence[AnchorRow]) -> list[Tensor]:
        """For each row the logits ``[places, vocabulary]`` at its places."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self._pad)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
            mask[index, : len(row.ids)] = 1
        device = next(model.parameters()).device
        # Logits are computed where some row has a place: there are none for prompts, which are most of long rows.
        wanted = sorted({place for row in rows for place in row.places})
        keeps = "logits_to_keep" in inspect.signature(_bare(model).forward).parameters
        keep = {"logits_to_keep": torch.tensor(wanted, device=device)} if keeps else {}
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, **keep).logits
        column = {place: index for index, place in enumerate(wanted)} if keeps else {place: place for place in wanted}
        return [logits[index, [column[place] for place in row.places]] for index, row in enumerate(rows)]

    def _sum_over(self, rows: Sequence[AnchorRow], logits: Sequence[Tensor]) -> Tensor:
        sums = []
        for row, at_places in zip(rows, logits, strict=True):
            if row.start is None or self._kind == "ce":
                targets = torch.tensor([row.ids[place + 1] for place in row.places], device=at_places.device)
                sums.append(functional.cross_entropy(at_places.float(), targets, reduction="sum"))
            else:
                start = TopLogProbs(*(getattr(row.start, name).to(at_places.device)
                                      for name in ("ids", "log_probs", "rest")))  # fmt: skip
                sums.append(forward_kl(start, at_places).sum())
        return torch.stack(sums).sum()


def make_anchor(config: TrainConfig, tokenizer: Any, bounds: Bounds) -> Anchor:
    """The anchor that the options ask for.

    Args:
        config: the options of the command.
        tokenizer: the tokenizer that training uses.
        bounds: what its rows must keep to.

    Raises:
        OgpsaError: its rows cannot be used.
    """
    rows = AnchorRows(config, tokenizer, bounds)
    num_safety = config.batch_size * config.accumulation * world_size()
    schedule = AnchorSchedule(len(rows), rows_per_step(num_safety, config.anchor_ratio), config.seed)
    return Anchor(
        rows, schedule, kind=config.anchor_kind, weight=config.anchor_weight, pad_token_id=int(tokenizer.pad_token_id)
    )


def _bare(model: Any) -> Any:
    """The model of transformers inside what engines and adapters put around it."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model
