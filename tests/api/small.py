"""A small model that is none of transformers', its batches, its loss, and a loop over it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipelines import Basis, build_basis


class Network(nn.Module):
    """Layers of unlike shapes, some of them too small to be projected."""

    def __init__(self, seed: int = 0, width: int = 12) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList([nn.Linear(7, width), nn.Linear(width, width)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(self.norm(x))


def batch(seed: int, rows: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(rows, 7, generator=generator), "y": torch.randn(rows, 3, generator=generator)}


def loss(model: Any, given: Any) -> Tensor:
    return (model(given["x"]) - given["y"]).square().sum()


def units(given: Any) -> float:
    return float(len(given["x"]))


REFERENCES = {"one": [batch(100), batch(101, rows=3)], "two": [batch(102)]}


def basis_of(model: nn.Module, **options: Any) -> Basis:
    return build_basis(model, REFERENCES, loss=loss, units=units, **options)


def one_step(model: nn.Module, optimizer: Any, seed: int) -> dict[str, Tensor]:
    """Backward, step and reset; the gradient before the step."""
    loss(model, batch(seed)).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    optimizer.step()
    optimizer.zero_grad()
    return gradients


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def as_rows(basis: Basis, model: nn.Module) -> list[dict[str, Tensor]]:
    """The rows as the plain implementation has them."""
    shapes = {name: p.shape for name, p in model.named_parameters()}
    return [{name: row[j].view(shapes[name]) for name, row in basis.rows.items()} for j in range(basis.rank)]
