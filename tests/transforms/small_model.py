"""A model of a few layers with transforms on it, and a step of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.passes.gradients import Objective
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.change_tracking import ChangeTracking
from pipelines.transforms.freezing import Freezing, frozen_tensors
from pipelines.transforms.projection import Projection, ProjectionSettings
from pipelines.transforms.transform import Transform

OPTIMIZERS: dict[str, Any] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.3),
    "Adam, amsgrad": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.3, amsgrad=True),
    "SGD, momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=0.3),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2, weight_decay=0.3),
}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 12)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(12, 12), nn.LayerNorm(12)) for _ in range(2))
        self.head = nn.Linear(12, 5)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embed(ids)
        for layer in self.layers:
            hidden = layer(hidden).tanh()
        return self.head(hidden)


def make(
    *, seed: int = 0, optimizer: str = "AdamW", freeze: Sequence[str] = (), track: bool = False, **options: Any
) -> Any:
    torch.manual_seed(seed)
    model = Model()
    with torch.no_grad():
        # Zeros of both signs are bits too.
        model.layers[0][0].weight[0, :4] = torch.tensor([-0.0, 0.0, -0.0, 1.0])
    access = ReplicatedAccess(model)
    steps = OPTIMIZERS[optimizer](model.parameters())
    transforms: list[Transform] = [ChangeTracking(access)] if track else []
    frozen = frozen_tensors(freeze, access) if freeze else []
    rows: list[Tensor] = []
    if options:
        rows = [torch.randn(2, shard.numel) for shard in access.shards]
        values = {"space": "gradient", "refresh_every": 0, "refresh_at_start": False, "strength": 1.0}
        objectives = [Objective(name, [{"x": torch.randint(11, (3, 4))}], [1.0], 12.0) for name in ("one", "two")]
        transforms.append(
            Projection(
                ProjectionSettings(**{**values, **options}), access, rows, objectives,
                lambda network, batch: network(batch["x"]).square().sum(), left_alone=frozen,
            )
        )  # fmt: skip
    if frozen:
        transforms.append(Freezing(access, frozen))
    return model, TransformChain(access, steps, transforms), steps, dict(zip(access.names, rows, strict=bool(rows)))


def step(model: nn.Module, chain: TransformChain, optimizer: Any, *, measured: bool = False) -> dict[str, Tensor]:
    """One step; the change that it made."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.zero_grad()
    model(torch.randint(11, (6, 4))).square().mean().backward()
    chain.at_boundary(measured=measured)
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    chain.end_step()
    return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def as_basis(rows: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    return [{name: block[j] for name, block in rows.items()} for j in range(2)]


def bits(model: nn.Module, names: Sequence[str]) -> list[Tensor]:
    return [dict(model.named_parameters())[name].detach().view(torch.int32).clone() for name in names]
