"""The losses of forgetting written out for one answer after the other, with the starting model at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Unlearning:
    """What is minimised; ``retain`` is the weight of the chosen answers' mean cross-entropy."""

    kind: str
    beta: float
    gamma: float = 0.0
    retain: float = 0.0


def token_log_probs(model: nn.Module, prompt: list[int], completion: list[int]) -> Tensor:
    """The log-probabilities of the completion's tokens after the prompt."""
    ids = torch.tensor([prompt + completion])
    log_probs = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
    return log_probs[torch.arange(len(prompt) - 1, ids.shape[1] - 1), ids[0, len(prompt) :]]


def unlearning_loss(
    model: nn.Module,
    reference: nn.Module,
    pairs: Sequence[Mapping[str, Any]],
    what: Unlearning,
) -> Tensor:
    """The loss of a whole step: ``-log sigmoid(-x)``, as the papers have it, in float64.

    A pair may have ``weights`` of its rejected answer's tokens.
    """
    tokens: list[Tensor] = []
    answers: list[Tensor] = []
    kept: list[Tensor] = []
    for pair in pairs:
        answer = pair["rejected_ids"]
        w = torch.tensor(pair.get("weights", [1.0] * len(answer))).double()
        now = token_log_probs(model, pair["prompt_ids"], answer).double()
        with torch.no_grad():
            before = token_log_probs(reference, pair["prompt_ids"], answer).double()
        if what.kind == "simnpo":
            answers.append(_down(what.beta / len(answer) * (w * now).sum() + what.gamma))
        else:
            answers.append(_down(what.beta * (w * (now - before)).sum()))
            tokens += [each * _down(what.beta * ratio) for each, ratio in zip(w, now - before, strict=True) if each]
        if what.retain:
            kept += list(-token_log_probs(model, pair["prompt_ids"], pair["chosen_ids"]).double())
    loss = torch.stack(tokens).mean() if what.kind == "npo-token" else 2 / what.beta * torch.stack(answers).mean()
    return loss + (what.retain * torch.stack(kept).mean() if kept else 0.0)


def _down(exponent: Tensor) -> Tensor:
    return -torch.sigmoid(-exponent).log()
