"""Transforms in a chain, on a bare model and optimizer: their order, scopes, momentum, change tracking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.freezing import frozen_tensors
from pipelines.transforms.projection import keeps_momentum
from pipelines.transforms.scope import group_tensors
from pipelines.transforms.transform import StepPart, Transform
from tests.reference import plain
from tests.transforms.small_model import as_basis, make, step

# --- Scopes


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**16),
    scope=st.sampled_from(["tensor", "layer", "global"]),
    space=st.sampled_from(["gradient", "update"]),
    freeze=st.sampled_from([(), ("norms",), ("embeddings", "layers.0.*")]),
)
def test_scopes_equal_the_float64_formula(seed: int, scope: str, space: str, freeze: tuple[str, ...]) -> None:
    model, chain, steps, rows = make(seed=seed, scope=scope, space=space, freeze=freeze)
    other, plain_chain, plain_steps, _ = make(seed=seed, freeze=freeze)
    frozen = {chain.access.names[index] for index in frozen_tensors(freeze, chain.access)} if freeze else set()
    torch.manual_seed(seed)
    change = step(model, chain, steps)
    torch.manual_seed(seed)
    unprojected = step(other, plain_chain, plain_steps)
    if space == "update":
        wanted = plain.project_all(unprojected, as_basis(rows), scope, frozen)
        found = change
    else:
        # Clipping has scaled both; what matters is the direction.
        wanted = plain.project_all(
            {name: p.grad for name, p in other.named_parameters() if p.grad is not None}, as_basis(rows), scope, frozen
        )
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        wanted, found = ({n: g / _norm(each) for n, g in each.items()} for each in (wanted, found))
    scale = _norm(wanted)
    assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) <= 2e-6 * scale


def _norm(vectors: dict[str, Tensor]) -> float:
    return float(torch.cat([vector.flatten().double() for vector in vectors.values()]).norm())


def test_groups_are_layers_and_what_belongs_to_none() -> None:
    names = [
        "model.embed.weight",
        "model.layers.0.mlp.experts.3.w",
        "model.layers.0.norm.weight",
        "model.layers.10.w",
        "head",
    ]
    assert group_tensors(names, "tensor").of == (0, 1, 2, 3, 4)
    layers = group_tensors(names, "layer")
    assert layers.of == (0, 1, 1, 2, 3)
    assert layers.names == ("model.embed.weight", "model.layers.0", "model.layers.10", "head")
    assert group_tensors(names, "global").of == (0, 0, 0, 0, 0)


def test_figures_are_those_of_the_groups() -> None:
    model, chain, steps, _ = make(space="gradient", scope="layer")
    step(model, chain, steps, measured=True)
    figures = chain.figures()
    assert 0 < figures["projection/removed"] < 1
    assert [row[1] for row in chain.get("projection").layer_rows] == [
        "embed.weight",
        "layers.0",
        "layers.1",
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize("space", ["gradient", "update"])
@pytest.mark.parametrize("scope", ["tensor", "layer"])
def test_figures_are_numbers_where_all_of_a_group_is_frozen(scope: str, space: str) -> None:
    model, chain, steps, _ = make(space=space, scope=scope, freeze=["layers.0.*"])
    step(model, chain, steps, measured=True)
    figures = chain.figures()
    assert 0 < figures["projection/removed_random"] < 1
    assert all(math.isfinite(value) for value in figures.values())


# --- Momentum


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD, momentum"])
@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_momentum_is_projected_off_the_new_rows(optimizer: str, scope: str) -> None:
    model, chain, steps, _ = make(
        optimizer=optimizer, space="gradient", scope=scope, refresh_every=2, momentum="reproject"
    )
    key = "exp_avg" if optimizer == "AdamW" else "momentum_buffer"
    for _ in range(2):
        step(model, chain, steps)
    before = {name: steps.state[p][key].clone() for name, p in model.named_parameters()}
    assert chain.refresh_due(2)
    chain.refresh(2)
    rows = dict(zip(chain.access.names, chain.get("projection").projector.rows, strict=True))
    wanted = plain.project_all(before, as_basis(rows), scope)
    for name, p in model.named_parameters():
        torch.testing.assert_close(steps.state[p][key], wanted[name], rtol=1e-5, atol=1e-6 * float(before[name].norm()))
    assert any(not torch.equal(before[name], wanted[name]) for name in before)


def test_momentum_is_kept_unless_asked_for_and_there_is_none_at_the_start() -> None:
    model, chain, steps, _ = make(space="gradient", refresh_every=2, refresh_at_start=True, momentum="reproject")
    chain.refresh(0)
    model, chain, steps, _ = make(space="gradient", refresh_every=2)
    step(model, chain, steps)
    before = {p: steps.state[p]["exp_avg"].clone() for p in model.parameters()}
    chain.refresh(2)
    assert all(torch.equal(steps.state[p]["exp_avg"], kept) for p, kept in before.items())


def test_optimizers_without_momentum_are_known() -> None:
    parameters = [nn.Parameter(torch.zeros(3, 3))]
    assert keeps_momentum(torch.optim.AdamW(parameters))
    assert keeps_momentum(torch.optim.SGD(parameters, lr=1, momentum=0.9))
    assert not keeps_momentum(torch.optim.SGD(parameters, lr=1))
    assert not keeps_momentum(torch.optim.Adagrad(parameters))


# --- The chain


class Noting(Transform):
    seen: ClassVar[list[str]] = []

    def __init__(self, name: str, order: int, *, edits: bool = False) -> None:
        self.name, self.order, self.edits = name, order, edits  # type: ignore[misc]

    def on_gradient(self, gradients: Sequence[Tensor | None], *, measured: bool) -> bool:
        self.seen.append(f"{self.name} gradient")
        return False

    def keeps_weights(self, shard: int, *, measured: bool) -> bool:
        return shard == 0

    def on_change(self, part: StepPart, *, measured: bool) -> bool:
        self.seen.append(f"{self.name} change {[before is not None for before in part.before]}")
        return self.edits

    def observes_change(self, *, measured: bool) -> bool:
        return measured

    def on_final_change(self, part: StepPart, change: Sequence[Tensor | None]) -> None:
        self.seen.append(f"{self.name} final")


def test_transforms_act_in_their_order_and_share_one_copy() -> None:
    model = nn.Linear(3, 4)
    steps = torch.optim.SGD(model.parameters(), lr=1.0)
    Noting.seen.clear()
    chain = TransformChain(ReplicatedAccess(model), steps, [Noting("late", 9), Noting("early", 1)])
    model(torch.ones(1, 3)).sum().backward()
    chain.at_boundary(measured=True)
    steps.step()
    chain.end_step()
    assert Noting.seen == [
        "early gradient", "late gradient", "early change [True, False]", "late change [True, False]",
        "early final", "late final",
    ]  # fmt: skip
    chain.close()
    steps.step()
    assert len(Noting.seen) == 6


def test_tracking_changes_nothing(tmp_path: Any) -> None:
    changes = []
    for track in (True, False):
        model, chain, steps, _ = make(space="update", scope="layer", freeze=["norms"], track=track)
        torch.manual_seed(2)
        changes.append([step(model, chain, steps, measured=True) for _ in range(3)])
    for one, other in zip(*changes, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_a_chain_keeps_brings_another_to_the_same_place(tmp_path: Any) -> None:
    model, chain, steps, _ = make(space="update", freeze=["norms"], track=True, refresh_every=1)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    step(model, chain, steps)
    chain.refresh(1)
    other, again, _, _ = make(seed=1, space="update", freeze=["norms"], track=True, refresh_every=1)
    other.load_state_dict(model.state_dict())
    again.restore(chain.state(), {key: list(values) for key, values in chain.tensors().items()})
    assert again.state() == chain.state()
    assert again.finish(tmp_path) == {
        "frozen_tensors": 4,
        "frozen_identical": True,
        "refreshes": 1,
        "change_norm": pytest.approx(_norm({n: p.detach() - start[n] for n, p in model.named_parameters()}), rel=1e-6),
    }
