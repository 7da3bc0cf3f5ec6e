"""The losses of forgetting against their formulas in plain Python, their derivatives, and their limits."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.training.unlearning import UnlearningLoss, unlearning_loss_sum

KINDS: tuple[UnlearningLoss, ...] = ("npo-token", "npo", "simnpo")


def softplus(x: float) -> float:
    """-log sigmoid(-x), without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def batch(seed: int) -> dict[str, Any]:
    """Answers of unlike lengths, the first of no token at all, with weights of which some are 0."""
    rng = random.Random(seed)
    lengths = [0, *(rng.randint(1, 7) for _ in range(rng.randint(1, 4)))]
    width = max(lengths) + rng.randint(0, 2)
    inside = [[place < length for place in range(width)] for length in lengths]

    def tensor(draw: Any) -> Tensor:
        return torch.tensor([[draw() if here else 0.0 for here in row] for row in inside], dtype=torch.float64)

    return {
        "log_probs": tensor(lambda: -rng.expovariate(0.3)),
        "reference": tensor(lambda: -rng.expovariate(0.3)),
        "weights": tensor(lambda: rng.choice([0.0, 1.0, rng.random()])),
        "lengths": torch.tensor(lengths),
    }


def by_hand(kind: str, of: dict[str, Any], beta: float, gamma: float) -> tuple[float, list[list[float]]]:
    """The sum of the loss, and its derivative by every log-probability."""
    total, slopes = 0.0, []
    rows = zip(*(of[name].tolist() for name in ("log_probs", "reference", "weights", "lengths")), strict=True)
    for now, before, weights, length in rows:
        ratios = [a - b for a, b in zip(now, before, strict=True)]
        if kind == "npo-token":
            total += sum(w * softplus(beta * r) for w, r in zip(weights, ratios, strict=True))
            slopes.append([w * beta * sigmoid(beta * r) for w, r in zip(weights, ratios, strict=True)])
            continue
        if length == 0:
            slopes.append([0.0] * len(now))
            continue
        scale = 1 / length if kind == "simnpo" else 1.0
        level = now if kind == "simnpo" else ratios
        exponent = beta * scale * sum(w * x for w, x in zip(weights, level, strict=True))
        exponent += gamma if kind == "simnpo" else 0.0
        total += 2 / beta * softplus(exponent)
        slopes.append([2 * scale * w * sigmoid(exponent) for w in weights])
    return total, slopes


def value(kind: UnlearningLoss, of: dict[str, Any], beta: float, gamma: float = 0.0) -> Tensor:
    return unlearning_loss_sum(kind, **of, beta=beta, gamma=gamma)


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_derivative_are_those_of_the_formula(kind: UnlearningLoss) -> None:
    for seed in range(60):
        of, rng = batch(seed), random.Random(seed + 1000)
        beta, gamma = math.exp(rng.uniform(-5, 3)), rng.uniform(-2, 2)
        of["log_probs"].requires_grad_()
        loss = value(kind, of, beta, gamma)
        loss.backward()
        wanted, slopes = by_hand(kind, of, beta, gamma)
        assert loss.item() == pytest.approx(wanted, rel=1e-12)
        assert torch.allclose(of["log_probs"].grad, torch.tensor(slopes, dtype=torch.float64), rtol=1e-10, atol=1e-14)
        # No loss rewards a token for being likely.
        assert bool((of["log_probs"].grad >= 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_those_of_finite_differences(kind: UnlearningLoss) -> None:
    of = batch(3)
    of["log_probs"].requires_grad_()

    def loss(log_probs: Tensor) -> Tensor:
        return value(kind, {**of, "log_probs": log_probs}, 0.7, 0.3)

    assert torch.autograd.gradcheck(loss, of["log_probs"])


def test_at_the_start_every_token_counts_log_two_times_its_weight() -> None:
    of = batch(5)
    of["reference"] = of["log_probs"].detach().clone()
    of["log_probs"].requires_grad_()
    loss = value("npo-token", of, 0.1)
    assert loss.item() == pytest.approx(math.log(2) * float(of["weights"].sum()), rel=1e-12)
    loss.backward()
    assert torch.allclose(of["log_probs"].grad, 0.05 * of["weights"])


@pytest.mark.parametrize(("kind", "share"), [("npo-token", 0.5), ("npo", None), ("simnpo", None)])
def test_a_small_beta_is_gradient_ascent(kind: UnlearningLoss, share: float | None) -> None:
    beta = 1e-7
    of = batch(8)
    of["log_probs"].requires_grad_()
    value(kind, of, beta).backward()
    ascent = of["weights"].clone()
    if kind == "simnpo":
        ascent /= of["lengths"].clamp(min=1)[:, None]
    assert torch.allclose(of["log_probs"].grad, (1.0 if share is None else share * beta) * ascent, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_sum_of_its_rows_whatever_pads_them(kind: UnlearningLoss) -> None:
    for seed in range(20):
        of = batch(seed)
        parts = 0.0
        for row in range(len(of["lengths"])):
            width = max(1, int(of["lengths"][row]))
            part = {name: tensor[row : row + 1] for name, tensor in of.items()}
            parts += value(kind, {n: t if n == "lengths" else t[:, :width] for n, t in part.items()}, 0.4, 0.1).item()
        # What the reference says of tokens without a weight does not matter.
        of["reference"] = torch.where(of["weights"] != 0, of["reference"], torch.nan)
        assert value(kind, of, 0.4, 0.1).item() == pytest.approx(parts, rel=1e-12)


def test_nothing_overflows_where_a_model_has_come_far() -> None:
    of = {"log_probs": torch.tensor([[-1e4, -1e-4]], requires_grad=True), "reference": torch.tensor([[0.0, -1e4]]),
          "weights": torch.ones(1, 2), "lengths": torch.tensor([2])}  # fmt: skip
    for kind in KINDS:
        loss = value(kind, of, 4.0)
        (slope,) = torch.autograd.grad(loss, of["log_probs"])
        assert bool(torch.isfinite(loss))
        assert bool(torch.isfinite(slope).all())
