"""Losses beside that of the safety rows, put together for a forward pass, with the figures of all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.core.job import world_size
from pipelines.passes.states import states_seen
from pipelines.tokens.labels import IGNORED
from pipelines.training.anchor import Anchor, Figures
from pipelines.training.data.weighting import TOKEN_WEIGHTS
from pipelines.training.prompt_anchor import Prompt, PromptAnchor


class Beside:
    """The losses beside that of the safety rows.

    Args:
        anchor: the anchor, or None.
        prompts: the prompt anchor, or None.
    """

    def __init__(self, anchor: Anchor | None, prompts: PromptAnchor | None) -> None:
        self._anchor, self._prompts = anchor, prompts
        self._found: list[list[Prompt]] = []
        self._whole = 0
        self._done = 0

    def begin_step(self, batches: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Take note of the batches of an optimizer step. Collective."""
        self._done = 0
        if self._prompts is None:
            return
        self._found = [self._prompts.find(batch) for batch in batches]
        count = torch.tensor(sum(prompt.num_places for found in self._found for prompt in found), device=device)
        if world_size() > 1:
            dist.all_reduce(count)
        self._whole = int(count)

    def anchor_tokens(self, step: int) -> list[int]:
        """The tokens of the anchor rows of an optimizer step, of each set and over all ranks; empty without an anchor.

        Args:
            step: the number of the step, from 0.
        """
        return [] if self._anchor is None else self._anchor.num_tokens(step)

    def add(
        self,
        safety: Callable[[], tuple[Tensor, bool]],
        model: Any,
        inputs: Mapping[str, Any],
        *,
        step: int,
        num_batches: int,
        measured: bool,
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a forward pass of the safety rows with all others beside it. Collective.

        Args:
            safety: computes the loss of the safety rows as the trainer has it, and says whether the losses of a step's
                batches are to be summed; otherwise the trainer takes their mean.
            model: the model as the trainer calls it.
            inputs: the batch.
            step: the number of the optimizer step, from 0.
            num_batches: the number of accumulated batches of the step.
            measured: whether what is only logged is to be computed.

        Returns:
            The loss; and figures whose mean over the batches of a step is that of the step.
        """
        tokens = _num_tokens(inputs)
        seen: list[Tensor] = []
        batch, self._done = self._done, self._done + 1
        with contextlib.ExitStack() as looking:
            if self._prompts is not None:
                looking.enter_context(states_seen(model, self._prompts.look(model, self._found[batch], seen.append)))
            loss, summed = safety()
        # Engines average gradients over ranks, and the trainer may take the mean over batches; our parts are sums.
        scale = world_size() * (1 if summed else num_batches)
        figures: Figures = {"safety/loss": loss.detach().float() / scale, "safety/tokens": tokens}
        if self._prompts is not None:
            part, more = self._prompts.part(seen[0], self._found[batch], self._whole)
            loss, figures = loss + part * scale, figures | more
        if self._anchor is not None:
            part, more = self._anchor.loss(model, step=step, batch=batch, num_batches=num_batches, measured=measured)
            loss, figures = loss + part * scale, figures | more
        return loss, over_ranks(figures, num_batches, loss)


def _num_tokens(inputs: Mapping[str, Any]) -> Tensor:
    """The number of trained tokens of a batch."""
    if "completion_mask" in inputs:
        inside = torch.as_tensor(inputs["completion_mask"]) != 0
    else:
        inside = torch.as_tensor(inputs["labels"][:, 1:]) != IGNORED
    if TOKEN_WEIGHTS in inputs:
        inside = inside & (inputs[TOKEN_WEIGHTS][:, -inside.shape[1] :] != 0)
    return inside.sum()


def over_ranks(figures: Figures, num_batches: int, like: Tensor) -> dict[str, float]:
    """Sums of figures over ranks, times the number of a step's batches: the log's mean is then the step's. Collective.

    Args:
        figures: this batch's parts of figures of the step.
        num_batches: the number of accumulated batches of the step.
        like: a tensor on the device to compute on.
    """
    values = torch.stack(
        [torch.as_tensor(value, dtype=torch.float64, device=like.device) for value in figures.values()]
    )
    if world_size() > 1:
        dist.all_reduce(values)
    return dict(zip(figures, (num_batches * values).tolist(), strict=True))
