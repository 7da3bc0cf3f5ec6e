"""Transforms in a chain, on a bare model and optimizer: their order, freezing, change tracking, scopes, momentum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from data_registry.core.errors import ConfigError
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.passes.gradients import Objective
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.change_tracking import ChangeTracking
from pipelines.transforms.freezing import Freezing, frozen_tensors
from pipelines.transforms.projection import Projection, ProjectionSettings, keeps_momentum
from pipelines.transforms.scope import group_tensors
from pipelines.transforms.transform import StepPart, Transform
from tests.reference import plain

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
        values = {"space": "gradient", "refresh_every": 0, "refresh_at_start": False, "strength": 1.0, "seed": 0}
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


# --- Freezing


@pytest.mark.parametrize(
    "options", [{}, {"space": "gradient"}, {"space": "update"}, {"space": "update", "scope": "global"}]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_weights_keep_their_bits(optimizer: str, options: dict[str, Any]) -> None:
    names = ["layers.0.0.weight", "layers.0.0.bias", "layers.0.1.weight", "layers.1.1.weight"]
    model, chain, steps, _ = make(optimizer=optimizer, freeze=["layers.0.0.*", "layers.?.1.weight"], **options)
    before = bits(model, names)
    for number in range(4):
        change = step(model, chain, steps, measured=number % 2 == 0)
        assert all(bool(change[name].any()) for name in change if name not in names)
    assert all(torch.equal(a, b) for a, b in zip(before, bits(model, names), strict=True))


def test_the_rest_is_trained_as_if_the_frozen_were_not_there() -> None:
    """Also the clip norm is that of what is trained."""
    changes = []
    for by_us in (True, False):
        model, chain, steps, _ = make(optimizer="SGD, momentum", freeze=["norms"] if by_us else ())
        if not by_us:
            for name, p in model.named_parameters():
                p.requires_grad_(name.split(".")[2:3] != ["1"])
            steps = OPTIMIZERS["SGD, momentum"]([p for p in model.parameters() if p.requires_grad])
        torch.manual_seed(5)
        changes.append([step(model, chain, steps) for _ in range(3)] if by_us else _plain_steps(model, steps))
    for ours, other in zip(*changes, strict=True):
        for name in ours:
            # The norm to which gradients are clipped is a sum with or without zeros: it may differ in its last digit.
            torch.testing.assert_close(ours[name], other[name], rtol=0, atol=1e-7)


def _plain_steps(model: nn.Module, optimizer: Any) -> list[dict[str, Tensor]]:
    changes = []
    for _ in range(3):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.zero_grad()
        model(torch.randint(11, (6, 4))).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        changes.append({name: p.detach() - before[name] for name, p in model.named_parameters()})
    return changes


def test_words_stand_for_kinds_of_parameters() -> None:
    access = ReplicatedAccess(Model())

    def names(*patterns: str) -> set[str]:
        return {access.names[index] for index in frozen_tensors(patterns, access)}

    assert names("embeddings") == {"embed.weight"}
    assert names("norms") == {f"layers.{i}.1.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    assert names("biases") == {f"layers.{i}.{j}.bias" for i in (0, 1) for j in (0, 1)} | {"head.bias"}
    assert names("embeddings", "head.*") == {"embed.weight", "head.weight", "head.bias"}


def test_the_remedy_names_patterns_of_this_model() -> None:
    access = ReplicatedAccess(Model())
    with pytest.raises(ConfigError) as caught:
        frozen_tensors(["nothing"], access)
    assert caught.value.fix is not None
    assert "'head.*'" in caught.value.fix
    lora = nn.ModuleDict(
        {"base": nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"lora_A": nn.Linear(3, 2)})])})}
    )
    with pytest.raises(ConfigError) as caught:
        frozen_tensors(["embeddings"], ReplicatedAccess(lora))
    assert caught.value.fix is not None
    assert "'base.layers.0.*'" in caught.value.fix


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["layers.7.*"], "--freeze layers.7.* names no parameter that is trained"),
        (["embedings"], "did you mean 'embeddings'"),
        (["*"], "leaves nothing to train: all 11"),
        (["nothing", "nowhere"], "--freeze nowhere"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        frozen_tensors(patterns, ReplicatedAccess(Model()))
    assert message in str(caught.value)


def test_a_word_that_names_nothing_is_not_suggested_for_itself() -> None:
    model = Model()
    model.embed.requires_grad_(False)
    with pytest.raises(ConfigError) as caught:
        frozen_tensors(["embeddings"], ReplicatedAccess(model))
    assert "--freeze embeddings names no parameter that is trained" in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_the_summary_is_computed(tmp_path: Any) -> None:
    model, chain, steps, _ = make(freeze=["norms"])
    step(model, chain, steps)
    assert chain.finish(tmp_path) == {"frozen_tensors": 4, "frozen_identical": True}
    with torch.no_grad():
        model.layers[1][1].weight[3:5] = model.layers[1][1].weight[3:5].flip(0) + torch.tensor([0.0, 1e-7])
    assert chain.finish(tmp_path)["frozen_identical"] is False


def test_two_weights_that_change_places_are_noticed(tmp_path: Any) -> None:
    model, chain, _, _ = make(freeze=["layers.1.0.weight"])
    with torch.no_grad():
        model.layers[1][0].weight[:2] = model.layers[1][0].weight[:2].flip(0)
    assert chain.finish(tmp_path)["frozen_identical"] is False


def test_frozen_masters_begin_with_what_the_model_computes_with() -> None:
    """DeepSpeed's stage 0 in bf16 has decayed them once by then."""
    model = Model().to(torch.bfloat16)
    masters = [p.detach().float() * 0.99 for p in model.parameters()]
    access = ReplicatedAccess(model, masters)
    frozen = frozen_tensors(["norms", "biases"], access)
    Freezing(access, frozen)
    same = [torch.equal(m, p.float()) for m, p in zip(masters, model.parameters(), strict=True)]
    assert same == [index in frozen or not bool(m.any()) for index, m in enumerate(masters)]


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
        "change_norm": pytest.approx(_norm({n: p.detach() - start[n] for n, p in model.named_parameters()}), rel=1e-6),
    }
