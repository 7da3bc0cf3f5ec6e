"""Masking on a bare model and optimizer: bits that stay, and the rest against an optimizer over the chosen values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_registry.core.errors import EngineError
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.gradients import projection
from pipelines.passes.gradients import Objective
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.masking import MaskedUpdate, Place, masking_transforms, needs_restoring
from pipelines.transforms.projection import Projection, ProjectionSettings
from pipelines.transforms.projector import Masked
from pipelines.transforms.transform import Transform
from tests.transforms.small_model import OPTIMIZERS, Model, step

PLACES: tuple[Place, ...] = ("update", "gradient")
MANY: dict[str, Any] = {
    **OPTIMIZERS,
    "AdamW, no decay": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.0),
    "AdamW, maximize": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.0, maximize=True),
    "SGD, no decay": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "SGD, maximize": lambda p: torch.optim.SGD(p, lr=1e-2, maximize=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True, weight_decay=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=1e-2, weight_decay=0.1),
}


class Run:
    """A model with a random mask, and projection if ``space`` is given."""

    def __init__(self, place: Place | None, *, optimizer: str = "AdamW", seed: int = 0, space: Any = None) -> None:
        torch.manual_seed(seed)
        self.model = Model()
        with torch.no_grad():
            for p in self.model.parameters():
                # Zeros of both signs are bits too.
                p.view(-1)[::3] = torch.where(torch.rand_like(p.view(-1)[::3]) < 0.5, -0.0, 0.0)
        self.access = ReplicatedAccess(self.model)
        self.frozen = [torch.rand(shard.numel) < 0.7 for shard in self.access.shards]
        self.frozen[3].fill_(True)
        self.frozen[1].fill_(False)
        self.optimizer = MANY[optimizer](self.model.parameters())
        self.rows = [torch.randn(2, shard.numel) for shard in self.access.shards]
        self.start = self.weights()
        transforms: list[Transform] = []
        if place is not None:
            again = space == "update"
            transforms += masking_transforms(place, self.access, self.frozen, self.optimizer, again=again)
        if space is not None:
            masked = Masked(self.frozen, [int((~held).sum()) for held in self.frozen])
            objectives = [Objective(name, [{"x": torch.randint(11, (3, 4))}], [1.0], 12.0) for name in ("one", "two")]
            transforms.append(
                Projection(
                    ProjectionSettings(space, 0, False, 1.0), self.access, [row.clone() for row in self.rows],
                    objectives, lambda network, batch: network(batch["x"]).square().sum(), masked=masked,
                )
            )  # fmt: skip
        self.chain = TransformChain(self.access, self.optimizer, transforms)

    def weights(self) -> list[Tensor]:
        return [p.detach().view(-1).clone() for p in self.model.parameters()]

    def train(self, steps: int, *, clip: float = 0.1, seed: int = 7) -> None:
        torch.manual_seed(seed)
        for number in range(steps):
            self.optimizer.zero_grad()
            self.model(torch.randint(11, (6, 4))).square().mean().backward()
            self.chain.at_boundary(measured=number % 2 == 0)
            if clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            self.optimizer.step()
            self.chain.end_step()

    def moved_though_frozen(self) -> int:
        return sum(
            int((now.view(torch.int32) != then.view(torch.int32))[held].sum())
            for now, then, held in zip(self.weights(), self.start, self.frozen, strict=True)
        )


@pytest.mark.parametrize("space", [None, "gradient", "update"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("optimizer", MANY)
def test_frozen_weights_keep_their_bits(optimizer: str, place: Place, space: str | None, tmp_path: Path) -> None:
    for seed in range(3):
        run = Run(place, optimizer=optimizer, seed=seed, space=space)
        run.train(3)
        assert run.moved_though_frozen() == 0
        found = run.chain.finish(tmp_path)
        assert found["frozen_identical"] is True
        trained = sum(int((~held).sum()) for held in run.frozen)
        moved = sum(
            int(((now != then) & ~held).sum())
            for now, then, held in zip(run.weights(), run.start, run.frozen, strict=True)
        )
        assert found["trained_weights"] == trained
        # 0 and -0 differ in a bit.
        assert found["moved_share"] >= moved / trained > 0.4


def test_the_published_optimizer_moves_frozen_weights_by_decay() -> None:
    """Its rule written anew: masked steps, and weight decay on everything."""
    run = Run(None)
    moved = 0
    for p, held, start in zip(run.model.parameters(), run.frozen, run.start, strict=True):
        update = torch.randn(p.numel()) * ~held
        weights = p.detach().view(-1) - 1e-2 * update
        weights = weights - 1e-2 * 0.3 * weights
        moved += int((weights != start)[held].sum())
    assert moved > 0


@pytest.mark.parametrize("optimizer", ["AdamW", "AdamW, no decay", "SGD, momentum"])
@pytest.mark.parametrize("place", PLACES)
def test_trained_weights_are_those_of_an_optimizer_over_the_chosen_values_alone(place: Place, optimizer: str) -> None:
    for seed in range(3):
        run, other = Run(place, optimizer=optimizer, seed=seed), Run(None, optimizer=optimizer, seed=seed)
        values = [
            nn.Parameter(p.detach().view(-1)[~held])
            for p, held in zip(other.model.parameters(), run.frozen, strict=True)
        ]
        gathered = MANY[optimizer](values)
        run.train(4, clip=0)
        torch.manual_seed(7)
        for _ in range(4):
            other.model.zero_grad()
            other.model(torch.randint(11, (6, 4))).square().mean().backward()
            for value, p, held in zip(values, other.model.parameters(), run.frozen, strict=True):
                value.grad = p.grad.view(-1)[~held]
            gathered.step()
            for value, p, held in zip(values, other.model.parameters(), run.frozen, strict=True):
                p.data.view(-1)[~held] = value.detach()
        for ours, theirs in zip(run.weights(), other.weights(), strict=True):
            # Vectors of other lengths are rounded by other instructions in their last digit.
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("optimizer", MANY)
def test_both_places_give_the_same_bits_where_nothing_is_clipped(optimizer: str) -> None:
    runs = [Run(place, optimizer=optimizer) for place in PLACES]
    for run in runs:
        run.train(4, clip=0)
    for ours, theirs in zip(runs[0].weights(), runs[1].weights(), strict=True):
        assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


def test_with_clipping_the_places_differ_by_the_factor_alone() -> None:
    changes, norms = [], []
    for place in PLACES:
        run = Run(place, optimizer="SGD, no decay")
        run.optimizer = torch.optim.SGD(run.model.parameters(), lr=1.0)
        run.chain = TransformChain(
            run.access, run.optimizer, masking_transforms(place, run.access, run.frozen, run.optimizer, again=False)
        )
        run.train(1, clip=0.01)
        changes.append(torch.cat(run.weights()).double() - torch.cat(run.start).double())
        whole = Run(None)
        torch.manual_seed(7)
        whole.model(torch.randint(11, (6, 4))).square().mean().backward()
        gradient = torch.cat([p.grad.view(-1) for p in whole.model.parameters()]).double()
        kept = gradient if place == "update" else gradient[~torch.cat(run.frozen)]
        norms.append(float(kept.norm()))
    assert norms[0] > norms[1] > 0.01
    torch.testing.assert_close(changes[0] * norms[0], changes[1] * norms[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("place", "space"), [("gradient", "gradient"), ("gradient", "update"), ("update", "update")])
def test_what_remains_is_orthogonal_to_the_masked_rows_and_nearest(place: Place, space: str) -> None:
    """Against least squares in float64 with the masked rows; projecting with whole rows and masking then fails."""
    run = Run(place, optimizer="SGD, no decay", space=space)
    run.optimizer = torch.optim.SGD(run.model.parameters(), lr=1e-2)
    plain = Run(None, optimizer="SGD, no decay")
    torch.manual_seed(7)
    plain.model(torch.randint(11, (6, 4))).square().mean().backward()
    gradients = [p.grad.view(-1).double() for p in plain.model.parameters()]
    torch.manual_seed(7)
    run.model(torch.randint(11, (6, 4))).square().mean().backward()
    run.chain._optimizer = run.optimizer
    chain = TransformChain(run.access, run.optimizer, run.chain.transforms)
    chain.at_boundary(measured=True)
    run.optimizer.step()
    chain.end_step()
    for now, start, g, held, rows in zip(run.weights(), run.start, gradients, run.frozen, run.rows, strict=True):
        change = now.double() - start.double()
        masked, wanted = rows.double() * ~held, -1e-2 * g * ~held
        if projection.is_projectable(int((~held).sum()), 2):
            wanted = wanted - masked.T @ torch.linalg.lstsq(masked.T, wanted[:, None]).solution[:, 0]
            for row in masked:
                assert abs(float(row @ change)) <= 1e-6 * float(row.norm()) * max(1.0, float(change.norm()))
            whole = (
                -1e-2 * (g - rows.double().T @ torch.linalg.lstsq(rows.double().T, g[:, None]).solution[:, 0]) * ~held
            )
            if bool(held.any()) and float(whole.norm()) > 0:
                leak = (rows.double() @ whole).abs() / (rows.double().norm(dim=1) * whole.norm())
                assert float(leak.max()) > 1e-4
        torch.testing.assert_close(change, wanted, rtol=0, atol=2e-8 + 1e-7 * float(start.abs().max()))
    figures = chain.figures()
    assert 0 < figures["projection/removed_random"] < 1


def test_a_refresh_masks_the_new_rows() -> None:
    run = Run("gradient", space="gradient")
    run.train(2)
    transform = run.chain.get("projection")
    transform.refresh(run.optimizer)
    for row, held in zip(transform.projector.rows, run.frozen, strict=True):
        assert not bool(row[:, held].any())
        assert bool(row[:, ~held].any()) or bool(held.all())


@pytest.mark.parametrize("place", PLACES)
def test_a_run_goes_on_with_the_start_of_the_run(place: Place, tmp_path: Path) -> None:
    whole, first, second = Run(place), Run(place), Run(place)
    whole.train(3)
    first.train(2)
    state, tensors = first.chain.state(), {k: list(v) for k, v in first.chain.tensors().items()}
    second.model.load_state_dict(first.model.state_dict())
    resumed = Run(place)
    resumed.model.load_state_dict(first.model.state_dict())
    resumed.chain.restore(state, tensors)
    assert resumed.chain.finish(tmp_path) == first.chain.finish(tmp_path)
    assert resumed.chain.finish(tmp_path)["moved_share"] > 0.4
    with torch.no_grad():
        next(resumed.model.parameters()).view(-1)[run_index(resumed)] += 1
    assert resumed.chain.finish(tmp_path)["frozen_identical"] is False


def run_index(run: Run) -> int:
    return int(run.frozen[0].nonzero()[0])


def test_the_first_step_ends_a_run_whose_frozen_weights_move() -> None:
    run = Run(None)
    broken = MaskedUpdate(run.access, run.frozen, restores=False)
    chain = TransformChain(run.access, run.optimizer, [broken])
    with pytest.raises(EngineError, match="outside the mask have moved"):
        step(run.model, chain, run.optimizer)


def test_a_copy_is_kept_only_where_an_optimizer_moves_weights_without_gradient() -> None:
    kept = {name for name, make in MANY.items() if needs_restoring(make([nn.Parameter(torch.zeros(3))]))}
    assert kept == set(MANY) - {"AdamW, no decay", "SGD, no decay"}
