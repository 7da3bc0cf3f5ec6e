"""Rounds of a step: which tensors go together, and that rounds change no bit and bound what is kept."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipelines.engine.shards.access import MasterSlice
from pipelines.engine.shards.partial_step import PartialStep, steps_by_element
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.change_tracking import ChangeTracking
from pipelines.transforms.projection import Projection, ProjectionSettings
from pipelines.transforms.rounds import divide
from pipelines.transforms.transform import StepPart
from tests.transforms.small_model import OPTIMIZERS, Model

LENGTHS = (5, 70, 64, 1, 33, 200)


@settings(max_examples=60)
@given(
    kept=st.integers(1, 4).flatmap(
        lambda ranks: st.lists(st.lists(st.integers(0, 40), min_size=ranks, max_size=ranks), min_size=1, max_size=12)
    ),
    limit=st.integers(1, 60),
)
def test_every_tensor_has_one_round_that_holds_it_on_all_ranks(kept: list[list[int]], limit: int) -> None:
    table = torch.tensor(kept).T
    rounds = divide(table, limit)
    assert sorted(index for each in rounds for index in each) == [i for i, row in enumerate(kept) if any(row)]
    for each in rounds:
        for loads in (table[:, each] - 1).clamp(min=0).tolist():
            # More than the limit is kept only for a tensor that has a place of its own among those that are kept.
            assert sum(loads) <= limit or sum(load > 0 for load in loads) == 1
    # Next to a tensor that fits nowhere else, rounds are as many as the fullest rank needs, and not their sum.
    alone = torch.block_diag(*[torch.full((1, 6), 11)] * 3)
    assert len(divide(alone, 20)) == 3


class FlatAccess(ReplicatedAccess):
    """All masters in one flat tensor with padding between and behind them, as ZeRO keeps them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.starts, end = [], 3
        for parameter in self._parameters:
            self.starts.append(end)
            end += parameter.numel() + (2 if len(self.starts) % 2 else 0)
        self.flat = nn.Parameter(torch.zeros(end + 5))
        self.flat.grad = torch.zeros_like(self.flat)
        for start, parameter in zip(self.starts, self._parameters, strict=True):
            self.flat.data[start : start + parameter.numel()] = parameter.data.flatten()

    def masters(self) -> list[MasterSlice]:
        return [
            MasterSlice(self.flat, start, parameter.numel())
            for start, parameter in zip(self.starts, self._parameters, strict=True)
        ]

    def gradients(self) -> list[Tensor | None]:
        return [master.gradient() for master in self.masters()]


class Largest(ChangeTracking):
    """Notes how much of the weights from before a step is held at once."""

    most = 0

    def on_change(self, part: StepPart, *, measured: bool) -> bool:
        self.most = max(self.most, sum(before.numel() for before in part.before if before is not None))
        return False


def _run(optimizer: str, limit: int, *, flat: bool, measured: bool, scope: str = "tensor") -> Any:
    torch.manual_seed(0)
    model = Model()
    access = FlatAccess(model) if flat else ReplicatedAccess(model)
    parameters = [access.flat] if isinstance(access, FlatAccess) else list(model.parameters())
    steps = OPTIMIZERS[optimizer](parameters)
    settings_ = ProjectionSettings(
        space="update",
        refresh_every=0,
        refresh_at_start=False,
        strength=1.0,
        scope=scope,  # type: ignore[arg-type]
    )
    projection = Projection(settings_, access, [torch.randn(2, s.numel) for s in access.shards], [], lambda *_: None)  # type: ignore[arg-type, return-value]
    largest = Largest(access)
    chain = TransformChain(access, steps, [projection, largest], round_elements=limit)
    for _ in range(3):
        for owner in parameters:
            owner.grad = torch.randn_like(owner)
        chain.at_boundary(measured=measured)
        steps.step()
        chain.end_step()
    states = [value for owner in parameters for value in steps.state[owner].values() if isinstance(value, Tensor)]
    known = {id(owner) for owner in parameters}
    assert all(id(owner) in known for owner in steps.state), "no slice is left in the state"
    assert steps.param_groups[0]["params"] == parameters
    chain.close()
    assert "step" not in vars(steps)
    return [owner.detach().clone() for owner in parameters], states, largest.most


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "replicated"])
@pytest.mark.parametrize("measured", [True, False], ids=["measured", "plain"])
@pytest.mark.parametrize("optimizer", ["AdamW", "Adam, amsgrad", "SGD, momentum"])
def test_rounds_change_no_bit_and_bound_what_is_kept(optimizer: str, measured: bool, flat: bool) -> None:
    weights, states, most = _run(optimizer, 150, flat=flat, measured=measured)
    whole_weights, whole_states, all_kept = _run(optimizer, 10**9, flat=flat, measured=measured)
    assert len(states) == len(whole_states) > 0
    for one, other in zip([*weights, *states], [*whole_weights, *whole_states], strict=True):
        assert torch.equal(one, other)
    # The largest tensor has 144 elements.
    assert most <= 150 < 300 < all_kept == sum(parameter.numel() for parameter in Model().parameters())


def test_what_cannot_be_divided_is_kept_whole() -> None:
    everything = sum(parameter.numel() for parameter in Model().parameters())
    assert _run("Adagrad", 150, flat=True, measured=False)[2] == everything
    assert _run("AdamW", 150, flat=True, measured=False, scope="global")[2] == everything


@settings(max_examples=40)
@given(
    cuts=st.lists(st.integers(1, 399), max_size=6, unique=True),
    seed=st.integers(0, 99),
    name=st.sampled_from(sorted(OPTIMIZERS)),
)
def test_a_step_in_parts_has_the_bits_of_the_whole(cuts: list[int], seed: int, name: str) -> None:
    torch.manual_seed(seed)
    start = torch.randn(400)
    whole, parts = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one, other = OPTIMIZERS[name]([whole]), OPTIMIZERS[name]([parts])
    if not steps_by_element(one):
        return
    edges = [0, *sorted(cuts), 400]
    slices = [MasterSlice(parts, low, high - low) for low, high in itertools.pairwise(edges)]
    for _ in range(3):
        whole.grad = torch.randn(400)
        parts.grad = whole.grad.clone()
        one.step()
        partial = PartialStep(other)
        chosen = slices[::2]
        for some in (chosen, partial.rest(chosen)):
            with partial.only(some):
                other.step()
        partial.close()
    assert torch.equal(whole, parts)
    first, second = one.state[whole], other.state[parts]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
