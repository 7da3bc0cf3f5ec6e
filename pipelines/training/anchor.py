"""The anchor's loss: rows held to the starting model or by cross-entropy, with a mean of their own.

For the R rows of an optimizer step, over all ranks and accumulated batches, with N places in all:
``weight * sum over the places of KL(start || model) / N``, or of minus the log-probability of the next token; or, over
the N positions of the rows, ``weight * sum of (h - h0)^2 / (N D mean h0^2)`` for the states of D numbers that the head
reads. N is known beforehand from the rows, so that the loss does not depend on how a step is cut into batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipelines.configs.anchors import Anchors
from pipelines.core.job import rank, world_size
from pipelines.passes.distributions import TopLogProbs, together
from pipelines.passes.states import at_places, bare_model, padded, pass_for_states
from pipelines.passes.tiled_head import CrossEntropy, Divergence, Head, PlaceLoss, sum_at_places
from pipelines.training.data.anchor_schedule import SharedSchedule
from pipelines.training.data.anchors import AnchorRow, AnchorRows, part_of

Figures = dict[str, Tensor | float]
"""Figures by name; the sum of a figure over all ranks and accumulated batches of a step is that of the step."""


class Anchor:
    """The anchor of a run.

    Args:
        sets: the rows.
        schedule: which rows belong to which step.
        anchors: the options.
        names: the name of each set.
        pad_token_id: the id of the token that pads batches.
        mean_square: for ``"hidden"`` the mean of the squares of the starting states' numbers.
    """

    def __init__(
        self, sets: Sequence[AnchorRows], schedule: SharedSchedule, anchors: Anchors, names: Sequence[str], *,
        pad_token_id: int, mean_square: float = 1.0,
    ) -> None:  # fmt: skip
        self._sets, self._schedule, self._kind, self._weight = sets, schedule, anchors.kind, anchors.weight
        self._pad, self._mean_square = pad_token_id, mean_square
        self._names = [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]

    def loss(self, model: Any, *, step: int, batch: int, num_batches: int, measured: bool) -> tuple[Tensor, Figures]:
        """This forward pass's part of the step's anchor loss, to be added to the loss of its safety rows. Collective.

        The parts of all ranks and accumulated batches sum up to the loss of the step.

        Args:
            model: the model as the trainer calls it.
            step: the number of the optimizer step, from 0.
            batch: the number of the accumulated batch within the step, from 0.
            num_batches: the number of accumulated batches of the step.
            measured: whether the divergence is also computed where it is not the loss.

        Returns:
            The part, a float32 scalar; and figures: the mean loss without the weight, of each set where there are
            several, the number of rows and of tokens, and the divergence where it is known.
        """
        numbers = self._schedule.step(step)
        mine, share = part_of(numbers, batch * world_size() + rank(), num_batches * world_size())
        rows = [self._sets[which][row] for which, row in mine]
        known = sum(self._sets[which].num_places(row) for which, row in numbers if self._sets[which].knows_start)
        found: list[tuple[Tensor, Tensor]] = []
        divergence: list[Tensor] = []

        def look(states: Tensor) -> None:
            found.append(self._sum(model, rows, states))
            if self._kind != "kl" and measured and known:
                with torch.no_grad():
                    divergence.append(_divergence(model, rows, states))

        ids = [row.ids for row in rows]
        pass_for_states(model, model, padded(ids, self._pad, next(model.parameters()).device), look)
        (total, by_row), whole = found[0], self._count(numbers)
        figures: Figures = {
            f"anchor/{self._kind}": share * total.detach() / whole,
            "anchor/rows": share * len(mine),
            "anchor/tokens": share * sum(self._sets[which].num_places(row) for which, row in mine),
        }
        if divergence:
            figures["anchor/kl"] = share * divergence[0] / known
        if len(self._sets) > 1:
            figures |= self._by_set(numbers, mine, share * by_row)
        return self._weight * share * total / whole, figures

    def num_tokens(self, step: int) -> list[int]:
        """The tokens that the model reads of each set's rows in an optimizer step, counted from 0, over all ranks."""
        tokens = [0] * len(self._sets)
        for which, row in self._schedule.step(step):
            tokens[which] += self._sets[which].num_positions(row)
        return tokens

    def _count(self, numbers: Sequence[tuple[int, int]]) -> int:
        """The number of places of rows, or of positions where all of them count."""
        if self._kind == "hidden":
            return sum(self._sets[which].num_positions(row) for which, row in numbers)
        return sum(self._sets[which].num_places(row) for which, row in numbers)

    def _sum(self, model: Any, rows: Sequence[AnchorRow], states: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses of rows, and that of each row without gradients. Collective under ZeRO 3."""
        if self._kind == "hidden":
            squares = torch.stack([_squares(row, states[index]) for index, row in enumerate(rows)])
            squares = squares / (states.shape[-1] * self._mean_square)
            return squares.sum(), squares.detach()
        places = [row.places for row in rows]
        if self._kind == "kl":
            loss: PlaceLoss = Divergence(_start(rows, states.device))
        else:
            targets = [row.ids[place + 1] for row in rows for place in row.places]
            loss = CrossEntropy(torch.tensor(targets, device=states.device))
        total, values = sum_at_places(at_places(states, places), Head.of(bare_model(model)), loss)
        return total, torch.stack([part.sum() for part in values.split([len(of_row) for of_row in places])])

    def _by_set(self, numbers: Sequence[tuple[int, int]], mine: Sequence[tuple[int, int]], by_row: Tensor) -> Figures:
        figures: Figures = {}
        for index, name in enumerate(self._names):
            of_set = [number for number in numbers if number[0] == index]
            here = [value for value, (which, _) in zip(by_row, mine, strict=True) if which == index]
            if of_set:
                total = torch.stack(here).sum() if here else by_row.new_zeros(())
                figures[f"anchor/{self._kind}/{name}"] = total / self._count(of_set)
        return figures


def _squares(row: AnchorRow, states: Tensor) -> Tensor:
    """The squared distance of a row's states from those of the starting model."""
    assert row.states is not None
    now = states[: len(row.ids)].float()
    return (now - row.states.to(states.device).float()).square().sum()


def _divergence(model: Any, rows: Sequence[AnchorRow], states: Tensor) -> Tensor:
    """The divergence at the places of rows of which the start is known, summed. Collective under ZeRO 3."""
    known = [(index, row) for index, row in enumerate(rows) if row.start is not None]
    places = [row.places if row.start is not None else [] for row in rows]
    head = Head.of(bare_model(model))
    if not known:
        targets = torch.zeros(0, dtype=torch.int64, device=states.device)
        return sum_at_places(at_places(states, places), head, CrossEntropy(targets))[0]
    start = _start([row for _, row in known], states.device)
    return sum_at_places(at_places(states, places), head, Divergence(start))[0]


def _start(rows: Sequence[AnchorRow], device: torch.device) -> TopLogProbs:
    return together([row.start for row in rows if row.start is not None], device)
