"""Plain PyTorch: whole-batch gradients, projection, clipping and AdamW, with nothing of the project in it.

This is what projected training must equal. It favours obviousness over everything: float64 for the projection, one
process, no trainer, no engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

Row = dict[str, list[int]]
Loss = Callable[[nn.Module, Sequence[Row]], Tensor]


def mean_token_loss(model: nn.Module, rows: Sequence[Row]) -> Tensor:
    """Mean over all trained tokens of all rows, one row at a time: no padding to get wrong."""
    total, count = torch.zeros(()), 0
    for row in rows:
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1].float()
        labels = torch.tensor(row["labels"][1:])
        total = total + nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        count += int((labels != -100).sum())
    return total / count


def completion_log_prob(model: nn.Module, prompt: list[int], completion: list[int]) -> Tensor:
    """Summed log-probability of the completion after the prompt."""
    ids = torch.tensor([prompt + completion])
    log_probs = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
    return log_probs[torch.arange(len(prompt) - 1, ids.shape[1] - 1), ids[0, len(prompt) :]].sum()


def mean_preference_loss(model: nn.Module, reference: nn.Module, pairs: Sequence[Row], beta: float) -> Tensor:
    """DPO's sigmoid loss, mean over pairs, with the reference model at hand."""
    total = torch.zeros(())
    for pair in pairs:
        margin = torch.zeros(())
        for side, sign in (("chosen_ids", 1), ("rejected_ids", -1)):
            with torch.no_grad():
                held = completion_log_prob(reference, pair["prompt_ids"], pair[side])
            margin = margin + sign * (completion_log_prob(model, pair["prompt_ids"], pair[side]) - held)
        total = total - nn.functional.logsigmoid(beta * margin)
    return total / len(pairs)


def gradient(model: nn.Module, rows: Sequence[Row], loss: Loss = mean_token_loss) -> dict[str, Tensor]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss(model, rows), list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads, strict=True)}


def project(vector: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """Remove the component in the rows' span, in float64 by least squares."""
    if vector.numel() <= 8:
        return vector
    B = torch.stack([row.flatten() for row in rows]).double()
    solution = torch.linalg.lstsq(B.T, vector.flatten().double()[:, None], driver="gelsd", rcond=1e-6).solution
    return (vector.flatten().double() - (B.T @ solution)[:, 0]).float().view_as(vector)


def project_all(
    vectors: dict[str, Tensor], basis: Sequence[dict[str, Tensor]], scope: str = "tensor", frozen: Collection[str] = ()
) -> dict[str, Tensor]:
    """Project vectors by name; what shares a subspace is laid end to end first. Frozen ones stay as they are."""
    together: dict[str, list[str]] = {}
    for name in vectors:
        layer = re.search(r"layers\.\d+\.", name)
        key = {"tensor": name, "global": "all", "layer": layer.group() if layer else name}[scope]
        if name not in frozen:
            together.setdefault(key, []).append(name)
    projected = dict(vectors)
    for names in together.values():
        whole = project(
            torch.cat([vectors[name].flatten() for name in names]),
            [torch.cat([row[name].flatten() for name in names]) for row in basis],
        )
        for name, part in zip(names, whole.split([vectors[name].numel() for name in names]), strict=True):
            projected[name] = part.view_as(vectors[name])
    return projected


def train(
    model: nn.Module,
    data: Sequence[Row],
    pools: Sequence[Sequence[Row]],
    *,
    steps: int,
    rows_per_step: int,
    lr: float,
    weight_decay: float,
    max_norm: float,
    eps: float,
    refresh_every: int,
    space: str,
    loss: Loss = mean_token_loss,
    reference_loss: Loss = mean_token_loss,
    scope: str = "tensor",
    momentum: str = "keep",
    frozen: Collection[str] = (),
) -> list[float]:
    """Train in place; the rows of step s are ``data[s * rows_per_step : (s + 1) * rows_per_step]``.

    Returns:
        the norm of each step's gradient, projected and not clipped.
    """
    norms = []
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trained = {name: p for name, p in named.items() if name not in frozen}
    decayed = [p for name, p in trained.items() if "norm" not in name and "bias" not in name]
    plain = [p for name, p in trained.items() if "norm" in name or "bias" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=lr, eps=eps
    )
    basis: list[dict[str, Tensor]] = []
    for step in range(steps):
        if pools and (step == 0 or (refresh_every and step % refresh_every == 0)):
            basis = [gradient(model, pool, reference_loss) for pool in pools]
            if momentum == "reproject" and step > 0:
                states = {name: optimizer.state[p] for name, p in trained.items()}
                kept = project_all({name: state["exp_avg"] for name, state in states.items()}, basis, scope)
                for name, state in states.items():
                    state["exp_avg"].copy_(kept[name])
        grads = gradient(model, data[step * rows_per_step : (step + 1) * rows_per_step], loss)
        if basis and space == "gradient":
            grads = project_all(grads, basis, scope, frozen)
        for name, p in trained.items():
            p.grad = grads[name]
        norms.append(float(torch.cat([p.grad.flatten() for p in trained.values() if p.grad is not None]).norm()))
        if max_norm:
            nn.utils.clip_grad_norm_(list(trained.values()), max_norm)
        before = {name: p.detach().clone() for name, p in trained.items()}
        optimizer.step()
        if basis and space == "update":
            with torch.no_grad():
                changes = project_all({name: p - before[name] for name, p in trained.items()}, basis, scope)
                for name, p in trained.items():
                    p.copy_(before[name] + changes[name])
    return norms
