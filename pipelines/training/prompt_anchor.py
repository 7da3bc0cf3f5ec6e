"""The prompt anchor: the divergence from the starting model at the places of the safety prompts themselves.

``mu * sum over the places of KL(start || model) / N``, where the places of a prompt of n tokens are its first n - 1
positions: those before the one that predicts the first token of the answer. N counts the places of all prompts of an
optimizer step. The states are those of the forward pass of the safety loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.passes.distributions import together
from pipelines.passes.states import bare_model
from pipelines.passes.tiled_head import CrossEntropy, Divergence, Head, PlaceLoss, sum_at_places
from pipelines.samples.storage import StoredLogProbs
from pipelines.tokens.labels import IGNORED
from pipelines.training.anchor import Figures


@dataclass(frozen=True)
class Prompt:
    """A prompt in a batch.

    Attributes:
        row: the row of the batch.
        first: the position of its first token.
        ids: its tokens.
    """

    row: int
    first: int
    ids: tuple[int, ...]

    @property
    def num_places(self) -> int:
        """The number of places at which the model is held."""
        return len(self.ids) - 1


class PromptAnchor:
    """The prompt anchor of a run.

    Args:
        prompts: the safety prompts in tokens, each once.
        start: what the starting model expected at them, in the same order.
        weight: the weight of the loss.
        others: prompts of other rows of the training data, at which the model is not held.
    """

    def __init__(
        self, prompts: Sequence[Sequence[int]], start: StoredLogProbs, weight: float, others: Sequence[Sequence[int]]
    ) -> None:
        self._numbers = {tuple(prompt): number for number, prompt in enumerate(prompts)}
        self._start, self._weight = start, weight
        self._others = set(map(tuple, others)) - set(self._numbers)

    def find(self, inputs: Mapping[str, Any]) -> list[Prompt]:
        """The safety prompts in a batch that have places; of a preference pair, the prompt once."""
        found = [prompt for prompt in _prompts(inputs) if prompt.num_places > 0 and prompt.ids not in self._others]
        assert all(prompt.ids in self._numbers for prompt in found), "a prompt that the starting model was not asked"
        return found

    def look(self, model: Any, prompts: Sequence[Prompt], take: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
        """What is to be done with the states of a forward pass. Collective under ZeRO 3.

        Args:
            model: the model, in whatever is around it.
            prompts: the prompts of the batch.
            take: is given the divergence, summed over the places.
        """

        def look(states: Tensor) -> None:
            rows = [prompt.row for prompt in prompts for _ in range(prompt.num_places)]
            columns = [prompt.first + index for prompt in prompts for index in range(prompt.num_places)]
            at = states[_indices(rows, states.device), _indices(columns, states.device)]
            loss: PlaceLoss = CrossEntropy(_indices([], states.device))
            if prompts:
                start = [self._start.row(self._numbers[prompt.ids]) for prompt in prompts]
                loss = Divergence(together(start, states.device))
            take(sum_at_places(at, Head.of(bare_model(model)), loss)[0])

        return look

    def part(self, total: Tensor, prompts: Sequence[Prompt], whole: int) -> tuple[Tensor, Figures]:
        """This forward pass's part of the step's loss, and its figures.

        Args:
            total: the divergence, summed over the places of the batch.
            prompts: the prompts of the batch.
            whole: the number of places of the step.
        """
        mean = total / max(1, whole)
        places = sum(prompt.num_places for prompt in prompts)
        return self._weight * mean, {"prompt/kl": mean.detach(), "prompt/tokens": places}


def prompt_of(ids: Sequence[int], labels: Sequence[int]) -> tuple[int, ...]:
    """The tokens before the first that is trained; none where nothing is."""
    first = next((index for index, label in enumerate(labels) if index > 0 and label != IGNORED), 0)
    return tuple(ids[:first])


def _prompts(inputs: Mapping[str, Any]) -> list[Prompt]:
    ids: list[list[int]] = inputs["input_ids"].tolist()
    if "completion_mask" in inputs:
        # A batch of pairs has all chosen sides first, then all rejected ones, and both sides have the prompt.
        ids = ids[: len(ids) // 2]
        labels = [[1 if inside else IGNORED for inside in row] for row in inputs["completion_mask"].tolist()]
    else:
        labels = inputs["labels"].tolist()
    found = []
    for row, sequence in enumerate(ids):
        for first, last in _pieces(inputs, row, len(sequence)):
            found.append(Prompt(row, first, prompt_of(sequence[first:last], labels[row][first:last])))
    return found


def _pieces(inputs: Mapping[str, Any], row: int, length: int) -> list[tuple[int, int]]:
    """The first and the last position of each row of data in a row of a batch, which may be packed."""
    if "attention_mask" in inputs:
        inside = inputs["attention_mask"][row].nonzero().flatten().tolist()
        return [(inside[0], inside[-1] + 1)]
    firsts = (inputs["position_ids"][row] == 0).nonzero().flatten().tolist()
    return list(zip(firsts, [*firsts[1:], length], strict=True))


def _indices(numbers: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64, device=device)
