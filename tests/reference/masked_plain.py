"""Plain PyTorch: masked training by another algorithm, an optimizer over the chosen values alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tests.reference.plain import Loss, Row, gradient, mean_token_loss, project


def train_masked(
    model: nn.Module,
    data: Sequence[Row],
    pools: Sequence[Sequence[Row]],
    chosen: Mapping[str, Tensor],
    *,
    place: str,
    space: str | None,
    steps: int,
    rows_per_step: int,
    lr: float,
    weight_decay: float,
    max_norm: float,
    eps: float,
    refresh_every: int,
    loss: Loss = mean_token_loss,
    reference_loss: Loss = mean_token_loss,
) -> None:
    """Train in place. The chosen values of each parameter are gathered into a vector, and nothing else is stepped.

    With ``place`` ``"update"`` the clip norm is that of the whole gradient, with ``"gradient"`` that of the chosen
    values. Rows are gathered as gradients are: what lies outside the mask is not there.
    """
    named = dict(model.named_parameters())
    values = {name: nn.Parameter(p.detach()[chosen[name]]) for name, p in named.items()}
    groups = [
        {"params": [v for n, v in values.items() if "norm" not in n and "bias" not in n], "weight_decay": weight_decay},
        {"params": [v for n, v in values.items() if "norm" in n or "bias" in n], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, eps=eps)
    basis: list[dict[str, Tensor]] = []
    for step in range(steps):
        if space is not None and step % refresh_every == 0:
            basis = [gradient(model, pool, reference_loss) for pool in pools]
            basis = [{name: row[name][chosen[name]] for name in row} for row in basis]
        whole = gradient(model, data[step * rows_per_step : (step + 1) * rows_per_step], loss)
        grads = {name: g[chosen[name]] for name, g in whole.items()}
        if space == "gradient":
            grads = {name: project(g, [row[name] for row in basis]) for name, g in grads.items()}
        counted = whole if place == "update" else grads
        norm = float(torch.cat([g.flatten() for g in counted.values()]).norm())
        factor = min(1.0, max_norm / (norm + 1e-6)) if max_norm else 1.0
        for name, value in values.items():
            value.grad = grads[name] * factor
        before = {name: value.detach().clone() for name, value in values.items()}
        optimizer.step()
        with torch.no_grad():
            for name, value in values.items():
                if space == "update":
                    change = project(value - before[name], [row[name] for row in basis])
                    value.copy_(before[name] + change)
                named[name][chosen[name]] = value
