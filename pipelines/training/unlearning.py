"""The losses of ``train-npo``: what is forgotten becomes less likely, and the less likely it is, the less it counts.

With l the log-probability of a token of an unwanted answer y under the model, l0 that under the starting model,
r = l - l0, w the token's weight, N the number of tokens with w other than 0 and B that of answers, both of the whole
optimizer step:

- ``npo-token``: ``1/N sum of w softplus(beta r)`` over tokens. At the start r is 0, and every token pulls with
  ``beta w / (2 N)``.
- ``npo``: ``2/(beta B) sum of softplus(beta sum of w r)`` over answers; -log sigmoid(-x) is softplus(x).
- ``simnpo``: ``2/(beta B) sum of softplus(beta/|y| sum of w l + gamma)`` over answers of |y| tokens; no l0 is needed.

All fall as l falls, so that minimising them lowers the probability of the answers.

Source:
    npo-token: ALLO, arXiv 2406.12606, RUCAIBox/ALLO@b3bdebb; it takes the mean over each batch of each process. npo:
    arXiv 2404.05868. simnpo: arXiv 2410.07163.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

UnlearningLoss = Literal["npo-token", "npo", "simnpo"]


def unlearning_loss_sum(
    kind: UnlearningLoss,
    log_probs: Tensor,
    reference: Tensor | None,
    weights: Tensor,
    lengths: Tensor,
    *,
    beta: float,
    gamma: float = 0.0,
) -> Tensor:
    """The sum of a loss over the tokens (``npo-token``) or the answers (``npo``, ``simnpo``) of a batch.

    Divided by N, or by B, of the optimizer step it is the batch's part of the step's loss.

    Args:
        kind: the loss.
        log_probs: ``[B, L]`` float32 or float64, the log-probabilities of the answers' tokens under the model.
        reference: ``[B, L]``, those under the starting model, anything where a token has weight 0; None for ``simnpo``.
        weights: ``[B, L]``, the tokens' weights, 0 outside the answers.
        lengths: ``[B]``, the number of tokens of each answer, whatever they weigh; answers of length 0 are no answers
            and count nothing.
        beta: greater than 0.
        gamma: of ``simnpo``.

    Returns:
        A scalar in the dtype of ``log_probs``.
    """
    weights = weights.to(log_probs.dtype)
    if kind == "simnpo":
        means = (weights * log_probs).sum(1) / lengths.clamp(min=1)
        return _of_answers(beta * means + gamma, lengths, beta)
    assert reference is not None, "the loss compares with the starting model"
    ratios = log_ratios(log_probs, reference, weights)
    if kind == "npo":
        return _of_answers(beta * (weights * ratios).sum(1), lengths, beta)
    return (weights * _softplus(beta * ratios)).sum()


def log_ratios(log_probs: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """``log_probs - reference`` where a token has a weight, and 0 elsewhere; all ``[B, L]``."""
    return torch.where(weights != 0, log_probs - reference.to(log_probs.dtype), 0.0)


def _of_answers(exponents: Tensor, lengths: Tensor, beta: float) -> Tensor:
    return 2 / beta * torch.where(lengths > 0, _softplus(exponents), 0.0).sum()


def _softplus(values: Tensor) -> Tensor:
    """log(1 + exp(x)); torch's own is x itself from 20 on, which is no longer exact in float64."""
    return -logsigmoid(-values)
