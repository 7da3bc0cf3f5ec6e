"""Projection within a step, on a bare model and optimizer: order of events, spaces, figures, refresh, self-test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_registry.core.errors import EngineError, NumericsError
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.passes.gradients import Objective
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.projection import Projection, ProjectionSettings
from pipelines.transforms.projector import Projector

NAMES = ("first", "second")


def make(space: str = "gradient", *, lr: float = 1e-3, optimizer: Any = torch.optim.AdamW, **settings: Any) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 10))
    access = ReplicatedAccess(model)
    rows = [torch.randn(2, shard.numel) for shard in access.shards]
    values = {"refresh_every": 0, "refresh_at_start": False, "strength": 1.0, **settings}
    data = torch.randn(2, 5, 12)
    objectives = [Objective(name, [{"x": data[j]}], [1.0], 5.0) for j, name in enumerate(NAMES)]
    steps = optimizer(model.parameters(), lr=lr, weight_decay=0.1)
    projection = Projection(
        ProjectionSettings(space=space, **values),  # type: ignore[arg-type]
        access,
        rows,
        objectives,
        lambda network, batch: network(batch["x"]).square().sum(),
    )
    return model, TransformChain(access, steps, [projection]), steps, rows


def projection_of(chain: TransformChain) -> Projection:
    (projection,) = chain.transforms
    assert isinstance(projection, Projection)
    return projection


def figures_of(chain: TransformChain) -> dict[str, float]:
    return {key.removeprefix("projection/"): value for key, value in chain.figures().items()}


def one_step(
    model: nn.Module, chain: TransformChain, optimizer: Any, step: int, *, measured: bool = True
) -> list[Tensor]:
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.zero_grad()
    model(torch.randn(7, 12)).square().mean().backward()
    chain.at_boundary(measured=measured)
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    chain.end_step()
    return [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]


def worst(vectors: list[Tensor], rows: list[Tensor]) -> float:
    return max(
        float((block.double() @ vector.flatten().double()).abs().max() / (block.norm() * vector.norm()))
        for vector, block in zip(vectors, rows, strict=True)
        if vector.numel() > 8
    )


def test_gradient_space_leaves_the_gradient_orthogonal() -> None:
    model, chain, optimizer, rows = make()
    change = one_step(model, chain, optimizer, 0)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert worst(gradients, rows) <= 1e-6
    assert worst(change, rows) > 1e-3  # Adam and weight decay turn it: that is why update space exists
    figures = figures_of(chain)
    assert 0 < figures["removed"] < 1
    assert abs(figures["leak/first"]) > 1e-4
    assert set(figures) == {
        "removed",
        "removed_random",
        *(f"{kind}/{n}" for kind in ("conflict", "leak") for n in NAMES),
    }


def test_update_space_leaves_the_change_orthogonal() -> None:
    model, chain, optimizer, rows = make("update")
    for step in range(4):
        change = one_step(model, chain, optimizer, step)
        assert worst(change, rows) <= 1e-5
    figures = figures_of(chain)
    assert abs(figures["leak/first"]) <= 1e-5
    assert figures["removed"] > 0


@pytest.mark.parametrize("space", ["gradient", "update"])
def test_a_step_without_figures_is_the_same_step(space: str) -> None:
    changes = []
    for measured in (True, False):
        model, chain, optimizer, _ = make(space)
        torch.manual_seed(1)
        changes.append([one_step(model, chain, optimizer, step, measured=measured) for step in range(2)])
        assert bool(figures_of(chain)) == measured
    assert all(torch.equal(a, b) for one, other in zip(*changes, strict=True) for a, b in zip(one, other, strict=True))


def test_conflict_and_leak_have_the_sign_of_the_loss() -> None:
    """A gradient equal to minus a reference gradient raises that loss, and both figures say so."""
    model, chain, optimizer, rows = make("gradient", optimizer=_sgd, strength=1e-9)
    for p, block in zip(model.parameters(), rows, strict=True):
        p.grad = -block[0].view_as(p).clone()
    chain.at_boundary()
    optimizer.step()
    figures = figures_of(chain)
    assert figures["conflict/first"] < -0.9
    assert figures["leak/first"] > 0.9


def _sgd(parameters: Any, lr: float, weight_decay: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=lr)


def test_no_leak_is_given_for_changes_below_rounding() -> None:
    model, chain, optimizer, _ = make("update", lr=1e-10)
    one_step(model, chain, optimizer, 0)
    assert not any(key.startswith("leak/") for key in figures_of(chain))


def test_refresh_takes_new_rows_and_says_how_far_they_drifted() -> None:
    model, chain, optimizer, _ = make(refresh_every=3, refresh_at_start=True)
    assert [step for step in range(7) if chain.refresh_due(step)] == [0, 3, 6]
    projection = projection_of(chain)
    projection.refresh(optimizer)
    first = dict(projection.refresh_figures)
    assert first["drift_degrees"] > 60  # random rows against real ones
    projection.refresh(optimizer)
    again = projection.refresh_figures
    assert again["drift_degrees"] == pytest.approx(0, abs=0.05)  # float32 products: cosines to 1e-7
    assert again["reference_loss/first"] == first["reference_loss/first"]
    wanted = torch.autograd.grad(
        model(projection.objectives[0].batches[0]["x"]).square().sum() / 5, list(model.parameters())
    )
    for block, gradient in zip(projection.projector.rows, wanted, strict=True):
        torch.testing.assert_close(block[0], gradient.flatten())


def test_strength_one_half_removes_half() -> None:
    torch.manual_seed(1)
    model, chain, _, rows = make(strength=0.5)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    before = [p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]
    chain.at_boundary()
    for p, old, block in zip(model.parameters(), before, rows, strict=True):
        if p.numel() > 8:
            assert p.grad is not None
            torch.testing.assert_close(block @ p.grad.flatten(), 0.5 * (block @ old), rtol=1e-4, atol=1e-5)


def test_self_test_notices_a_gradient_that_is_replaced_after_the_edit() -> None:
    model, chain, optimizer, _ = make()
    model(torch.randn(7, 12)).square().mean().backward()
    chain.at_boundary()
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    with pytest.raises(EngineError, match="without the edit"):
        chain.end_step()


def test_self_test_notices_a_gradient_that_is_not_read() -> None:
    model, chain, _, _ = make()
    model(torch.randn(7, 12)).square().mean().backward()
    chain.at_boundary()
    with pytest.raises(EngineError, match="was not read"):
        chain.end_step()


def test_rows_that_are_not_finite_are_refused() -> None:
    model = nn.Linear(12, 4)
    access = ReplicatedAccess(model)
    rows = [torch.randn(1, shard.numel) for shard in access.shards]
    rows[0][0, 3] = float("nan")
    with pytest.raises(NumericsError, match="weight"):
        Projector(access, rows)


def test_frozen_parameters_have_no_shards(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    model[0].requires_grad_(False)
    assert ReplicatedAccess(model).names == ["1.weight", "1.bias"]
