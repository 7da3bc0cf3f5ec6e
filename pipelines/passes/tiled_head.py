"""Sums of losses at places of hidden states, through the model's own head, without the logits of all places at once.

A tile of places goes through the head, gives its values and its gradients with respect to states and weights, and is
forgotten. The gradients are computed together with the values: the sum is linear in what the backward pass hands down,
so that nothing has to be computed again. Shapes: T places, H hidden size, V tokens of the vocabulary, K kept tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from trl.trainer.utils import maybe_gather_lm_head_ctx

from pipelines.passes.distributions import TopLogProbs, top_log_probs

# The number of logits that are held at once: 2^24 of them are 64 MiB in float32. Few places make a matrix product slow.
_MAX_LOGITS: Final = 1 << 24
_FEWEST, _MOST = 16, 1024


@dataclass(frozen=True)
class LogitRule:
    """What a model does to the output of its head before it calls it logits: ``cap * tanh(scale * x / cap)``.

    Attributes:
        scale: the factor.
        cap: the bound; None without one.
    """

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, model: Any) -> LogitRule:
        """The rule of a model of transformers, from its configuration."""
        config = model.config.get_text_config()
        cap = getattr(config, "final_logit_softcapping", None)
        divided = getattr(config, "logits_scaling", None)
        if divided is not None:
            # HyperCLOVA X multiplies by what all others divide by.
            return cls(divided if config.model_type == "hyperclovax" else 1 / divided, cap)
        for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
            scale = getattr(config, name, None)
            if scale is not None:
                return cls(float(scale), cap)
        return cls(1.0, cap)

    def apply_(self, logits: Tensor) -> Tensor:
        """Apply the rule in place."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, logits: Tensor) -> Tensor | None:
        """The derivative at logits that the rule gave; None where it is the scale everywhere."""
        return None if self.cap is None else (logits / self.cap).square_().neg_().add_(1.0)


@dataclass(frozen=True)
class Head:
    """A model's head.

    Attributes:
        weight: ``[V, H]``; under ZeRO 3 this rank's share of it.
        bias: ``[V]``, or None.
        rule: what becomes of its output.
    """

    weight: Tensor
    bias: Tensor | None
    rule: LogitRule

    @classmethod
    def of(cls, model: Any) -> Head:
        """The head of a causal language model of transformers."""
        head = model.get_output_embeddings()
        return cls(head.weight, getattr(head, "bias", None), LogitRule.of(model))


class PlaceLoss(Protocol):
    """A loss at each place."""

    def at_(self, logits: Tensor, first: int, gradients: bool) -> Tensor:
        """The losses of the places of one tile.

        Args:
            logits: ``[n, V]``; overwritten, with the gradients of the sum of the losses where they are asked for.
            first: the number of the tile's first place.
            gradients: whether gradients are asked for.

        Returns:
            ``[n]``.
        """


@dataclass(frozen=True)
class CrossEntropy:
    """Minus the log-probability of a token.

    Attributes:
        targets: int64 ``[T]``.
    """

    targets: Tensor

    def at_(self, logits: Tensor, first: int, gradients: bool) -> Tensor:
        """See :class:`PlaceLoss`."""
        targets = self.targets[first : first + len(logits), None]
        chosen = logits.gather(-1, targets)
        largest = _exponentials_(logits)
        own = logits.gather(-1, targets)
        # Summed without the token's own: of one that is nearly certain, one minus its probability would be rounding.
        others = logits.scatter_(-1, targets, 0.0).sum(-1, keepdim=True)
        total = own + others
        values = torch.where(own > 0.5, (others / own).log1p(), (largest - chosen) + total.log())
        if gradients:
            logits.div_(total).scatter_(-1, targets, -others / total)
        return values[:, 0]


@dataclass(frozen=True)
class Divergence:
    """The divergence from a starting model, as :func:`pipelines.passes.distributions.forward_kl` has it.

    Attributes:
        start: what the starting model expected at the T places.
    """

    start: TopLogProbs

    def at_(self, logits: Tensor, first: int, gradients: bool) -> Tensor:
        """See :class:`PlaceLoss`."""
        part = slice(first, first + len(logits))
        ids = self.start.ids[part]
        before, rest_before = (values[part].to(logits.dtype) for values in (self.start.log_probs, self.start.rest))
        kept = logits.gather(-1, ids)
        # The rest is summed from its own terms: one minus the others would be rounding where they are nearly all.
        logits.scatter_(-1, ids, -torch.inf)
        largest = _exponentials_(logits)[:, 0]
        rest = largest + logits.sum(-1).log()
        total = torch.logaddexp(rest, kept.logsumexp(-1))
        p_kept, p_rest = before.exp(), rest_before.exp()
        holds_some = rest_before > -torch.inf
        difference = torch.where(holds_some, rest_before - (rest - total), 0.0)
        values = (p_kept * (before - (kept - total[:, None]))).sum(-1) + p_rest * difference
        if gradients:
            mass = p_kept.sum(-1) + p_rest
            # With q the model's probabilities: mass q - p at the kept tokens, (mass - r0 / r) q at the others.
            factor = mass - torch.where(holds_some, difference.exp(), 0.0)
            logits.mul_((factor * (largest - total).exp())[:, None])
            logits.scatter_(-1, ids, mass[:, None] * (kept - total[:, None]).exp() - p_kept)
        return values


def _exponentials_(logits: Tensor) -> Tensor:
    """Turn logits ``[n, V]`` into ``exp(logits - largest)`` in place.

    Memory of that size which is written for the first time costs more than what is computed into it: ``logsumexp``
    takes twice as long.

    Returns:
        The largest logit of each place, ``[n, 1]``; the least number there is where all are minus infinity.
    """
    largest = logits.amax(-1, keepdim=True).clamp_min_(torch.finfo(logits.dtype).min)
    logits.sub_(largest).exp_()
    return largest


def sum_at_places(states: Tensor, head: Head, loss: PlaceLoss) -> tuple[Tensor, Tensor]:
    """The sum of a loss over places. Collective under ZeRO 3, also where a rank has no place.

    Args:
        states: ``[T, H]``, the states that the head reads; gradients flow to them and to the head.
        head: the model's head.
        loss: the loss.

    Returns:
        The sum, a float32 scalar, or float64 where the states are; and the losses ``[T]``, without gradients.
    """
    with maybe_gather_lm_head_ctx(head.weight, head.bias):
        gradients = torch.is_grad_enabled()
        total, values = _Sum.apply(states, head.weight, head.bias, head.rule, loss, gradients)
    return total, values


def log_probs_at_places(states: Tensor, head: Head, k: int) -> TopLogProbs:
    """The k most likely tokens at each of T places, without gradients. Collective under ZeRO 3."""
    with torch.no_grad(), maybe_gather_lm_head_ctx(head.weight, head.bias):
        tiles = [top_log_probs(logits, k) for _, logits in _tiles(states, head.weight, head.bias, head.rule)]
        if not tiles:
            tiles = [top_log_probs(states.new_zeros((0, len(head.weight))), k)]
    return TopLogProbs(*(torch.cat([getattr(tile, name) for tile in tiles]) for name in ("ids", "log_probs", "rest")))


def _tiles(states: Tensor, weight: Tensor, bias: Tensor | None, rule: LogitRule) -> Any:
    """The places of each tile as a slice, and its logits, in float32 at least; the next tile is in the same memory."""
    size = min(max(_MAX_LOGITS // len(weight), _FEWEST), _MOST)
    dtype = _arithmetic(states)
    across, bias = weight.to(dtype).t(), None if bias is None else bias.to(dtype)
    spare = states.new_empty(min(size, len(states)), len(weight), dtype=dtype)
    for first in range(0, len(states), size):
        part = slice(first, min(first + size, len(states)))
        here, logits = states[part].to(dtype), spare[: min(size, len(states) - first)]
        if bias is None:
            torch.mm(here, across, out=logits)
        else:
            torch.addmm(bias, here, across, out=logits)
        yield part, rule.apply_(logits if dtype == torch.float64 else logits.float())


def _arithmetic(states: Tensor) -> torch.dtype:
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, rule: LogitRule, loss: PlaceLoss, gradients: bool
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if states.dtype == torch.float64 else torch.float32
        wanted = [gradients and needed for needed in ctx.needs_input_grad[:3]]
        grads = [
            torch.zeros(of.shape, dtype=wide, device=of.device) if want and of is not None else None
            for of, want in zip((states, weight, bias), wanted, strict=True)
        ]
        of_states, of_weight, of_bias = grads
        values = states.new_zeros(len(states), dtype=wide)
        dtype = _arithmetic(states)
        used = weight.to(dtype)
        for part, logits in _tiles(states, used, bias, rule):
            slope = rule.slope(logits) if any(wanted) else None
            values[part] = loss.at_(logits, part.start, any(wanted))
            if not any(wanted):
                continue
            if slope is not None:
                logits.mul_(slope)
            grad = (logits if rule.scale == 1.0 else logits.mul_(rule.scale)).to(dtype)
            if of_states is not None:
                of_states[part] = torch.mm(grad, used).to(wide)
            if of_weight is not None:
                _add_product_(of_weight, grad.t(), states[part].to(dtype))
            if of_bias is not None:
                of_bias += grad.sum(0, dtype=wide)
        ctx.save_for_backward(*grads)
        ctx.types = [None if of is None else of.dtype for of in (states, weight, bias)]
        ctx.mark_non_differentiable(values)
        return values.sum(), values

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        grads = zip(ctx.saved_tensors, ctx.types, strict=True)
        # In place: a copy of the head's gradient would be the largest tensor of the backward pass.
        return (*(None if grad is None else grad.mul_(outer[0]).to(dtype) for grad, dtype in grads), None, None, None)


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a matrix product to a sum in float32, without a copy of it where the types allow."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right)
