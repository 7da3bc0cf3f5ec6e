"""ProjectedOptimizer on a bare loop: the formula in float64, everything that loops do with optimizers, and refusals."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from data_registry.core.errors import ArtifactError, BasisMismatchError, ConfigError, EngineError, InputError
from pipelines import Basis, ProjectedOptimizer, build_basis
from tests.api.small import Network, as_rows, basis_of, batch, loss, one_step, weights_of
from tests.api.worlds import World
from tests.reference import plain


def made(space: str = "gradient", *, seed: int = 0, lr: float = 1e-2, **options: Any) -> Any:
    model = Network(seed)
    options = {"refresh_every": 0, **options}
    inner = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    return model, ProjectedOptimizer(inner, model, basis_of(model), space=space, **options)


# --- What it computes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["tensor", "layer", "global"])
def test_the_projected_gradient_is_that_of_the_float64_formula(scope: str) -> None:
    for seed in range(4):
        model = Network(seed, width=9 + 4 * seed)
        basis = basis_of(model)
        seen: dict[str, torch.Tensor] = {}
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = ProjectedOptimizer(inner, model, basis, scope=scope, refresh_every=0)  # type: ignore[arg-type]
        optimizer.register_step_pre_hook(
            lambda *_: seen.update({name: p.grad.clone() for name, p in model.named_parameters()})  # noqa: B023
        )
        gradients = one_step(model, optimizer, seed)
        wanted = plain.project_all(gradients, as_rows(basis, model), scope)
        for name, gradient in wanted.items():
            torch.testing.assert_close(seen[name], gradient, rtol=1e-5, atol=1e-6 * float(gradients[name].norm()))
        if scope == "tensor":
            _check_orthogonal(seen, basis)


def test_the_change_is_orthogonal_in_update_space_momentum_and_decay_included() -> None:
    model, optimizer = made("update")
    basis = basis_of(model)
    reference = Network()
    unprojected = torch.optim.AdamW(reference.parameters(), lr=1e-2, weight_decay=0.1)
    for seed in range(3):
        before = weights_of(model)
        reference.load_state_dict(before)
        one_step(model, optimizer, seed)
        one_step(reference, unprojected, seed)
        rows = as_rows(basis, model)
        wanted = plain.project_all({n: p - before[n] for n, p in weights_of(reference).items()}, rows)
        changes = {name: p - before[name] for name, p in weights_of(model).items()}
        for name, change in wanted.items():
            torch.testing.assert_close(changes[name], change, rtol=1e-4, atol=1e-6)
        _check_orthogonal(changes, basis)


def _check_orthogonal(vectors: dict[str, torch.Tensor], basis: Basis) -> None:
    worst = 0.0
    for name, vector in vectors.items():
        if vector.numel() > 8:
            flat = vector.flatten().double()
            cosines = basis.rows[name].double() @ flat / (basis.rows[name].double().norm(dim=1) * flat.norm())
            worst = max(worst, float(cosines.abs().max()))
    # Weights of about 1 that change by a hundredth resolve the change to 1e-5.
    assert 0 <= worst < 3e-5


def test_gradients_are_clipped_after_projection() -> None:
    model, optimizer = made(max_grad_norm=1e-3)
    norms: list[float] = []
    optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))
    )
    one_step(model, optimizer, 1)
    assert norms == [pytest.approx(1e-3, rel=1e-4)]


@pytest.mark.parametrize("given", [None, basis_of], ids=["from its batches", "by a function"])
def test_rows_are_computed_again_when_due(given: Any) -> None:
    model = Network()
    basis = basis_of(model)
    optimizer = ProjectedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), model, basis, refresh=given, refresh_every=2, measure_every=1
    )
    for step in range(3):
        expected = basis_of(model) if step == 2 else basis
        one_step(model, optimizer, step)
        rows = optimizer.state_dict()["projection"]["rows"]
        assert all(torch.equal(rows[name], row) for name, row in expected.rows.items())
        assert ("projection/drift_degrees" in optimizer.figures()) == (step == 2)
    # What training does leaves the basis as it was.
    assert not torch.equal(rows["head.weight"], basis.rows["head.weight"])


def test_rows_are_computed_again_from_other_batches(world: World) -> None:
    found = []
    for refresh in ("others", "own"):
        model, tokenizer = world.load()
        batches = world.batches(tokenizer)
        others = {"assist": batches["reason"], "reason": batches["assist"]}
        basis = build_basis(model, batches if refresh == "others" else others)
        optimizer = ProjectedOptimizer(
            torch.optim.SGD(model.parameters(), lr=1e-3), model, basis, refresh_every=1, refresh_at_start=True,
            refresh=others if refresh == "others" else None,
        )  # fmt: skip
        model(**batches["assist"][0]).loss.backward()
        optimizer.step()
        found.append(weights_of(model))
    assert all(torch.equal(found[0][name], weight) for name, weight in found[1].items())
    with pytest.raises(InputError, match="1 sets of batches, and the basis 2 rows"):
        ProjectedOptimizer(
            torch.optim.SGD(model.parameters(), lr=1e-3), model, basis, refresh=batches["assist"], refresh_every=1
        )


# --- What loops do with optimizers ---------------------------------------------------------------------------------


def test_schedulers_closures_and_scalers() -> None:
    model, optimizer = made("update", lr=1e-2)
    assert isinstance(optimizer, torch.optim.Optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        optimizer.zero_grad()
        value = loss(model, batch(1))
        value.backward()
        return value

    other, plainly = made("update", lr=1e-2)
    assert optimizer.step(closure).item() > 0
    assert len(calls) == 1
    scheduler.step()
    assert optimizer.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 5e-3
    one_step(other, plainly, 1)
    assert all(torch.equal(p, weights_of(other)[name]) for name, p in weights_of(model).items())
    # Scaled by a power of two, the steps are the same to the bit; with gradients that overflow, there is none.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    third, scaled = made("update", lr=1e-2)
    scaler.scale(loss(third, batch(1))).backward()
    scaler.step(scaled)
    scaler.update()
    assert all(torch.equal(p, weights_of(other)[name]) for name, p in weights_of(third).items())
    third.head.weight.grad.fill_(torch.inf)
    before = weights_of(third)
    scaler.step(scaled)
    assert all(torch.equal(p, before[name]) for name, p in weights_of(third).items())


def test_accumulated_gradients_are_projected_once() -> None:
    model, optimizer = made()
    for seed in (1, 2):
        loss(model, batch(seed)).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizer.step()
    wanted = plain.project_all(gradients, as_rows(basis_of(Network()), model))
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("space", "momentum"), [("gradient", "reproject"), ("update", "keep")])
def test_a_run_goes_on_from_its_state_to_the_bit(space: str, momentum: str) -> None:
    options = {"refresh_every": 3, "momentum": momentum}
    whole, optimizer = made(space, **options)
    for step in range(8):
        one_step(whole, optimizer, step)
        if step == 3:
            file = io.BytesIO()
            torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    again, other = made(space, seed=5, **options)
    again.load_state_dict(kept["model"])
    other.load_state_dict(kept["optimizer"])
    for step in range(4, 8):
        one_step(again, other, step)
    assert all(torch.equal(p, weights_of(whole)[name]) for name, p in weights_of(again).items())


def test_taken_off_it_leaves_the_optimizer_as_it_was() -> None:
    model, optimizer = made("update")
    one_step(model, optimizer, 0)
    other, second = made("update")
    one_step(other, second, 0)
    bare, inner = second.close(), optimizer.optimizer
    one_step(other, bare, 1)
    inner = optimizer.close()
    one_step(model, inner, 1)
    assert isinstance(bare, torch.optim.AdamW)
    assert all(torch.equal(p, weights_of(other)[name]) for name, p in weights_of(model).items())


# --- Refusals ------------------------------------------------------------------------------------------------------


def test_wrong_options_are_all_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        made("updat", scope="layers", strength=0, momentum="reprojekt", max_drift=91, refresh_every=-1)
    assert len(caught.value.problems) == 6
    assert "update" in caught.value.problems[0]
    for options in ({"momentum": "reproject"}, {"refresh_at_start": True}, {"max_grad_norm": 0}):
        with pytest.raises(ConfigError):
            made(**options)


def test_parameters_and_optimizer_must_be_those_of_the_model() -> None:
    model = Network()
    basis = basis_of(model)
    with pytest.raises(ConfigError, match="not in the optimizer, such as 'layers"):
        ProjectedOptimizer(torch.optim.SGD(model.head.parameters(), lr=1), model, basis)
    both = [*model.parameters(), nn.Parameter(torch.ones(3))]
    with pytest.raises(ConfigError, match="not in the model"):
        ProjectedOptimizer(torch.optim.SGD(both, lr=1), model, basis)
    with pytest.raises(ConfigError, match="LBFGS"):
        ProjectedOptimizer(torch.optim.LBFGS(model.parameters()), model, basis)
    with pytest.raises(InputError, match="torch optimizer is needed"):
        ProjectedOptimizer(model, model, basis)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a basis is needed"):
        ProjectedOptimizer(torch.optim.SGD(model.parameters(), lr=1), model, 3)  # type: ignore[arg-type]
    wide = Network(width=20)
    with pytest.raises(BasisMismatchError, match=r"layers.0.weight is \[20, 7\] here and \[12, 7\]"):
        ProjectedOptimizer(torch.optim.SGD(wide.parameters(), lr=1), wide, basis)
    with pytest.raises(ConfigError, match="keeps no running mean"):
        ProjectedOptimizer(torch.optim.Adagrad(model.parameters()), model, basis, momentum="reproject", refresh_every=2)
    with pytest.raises(EngineError, match="DataParallel"):
        ProjectedOptimizer(torch.optim.SGD(model.parameters(), lr=1), nn.DataParallel(model), basis)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter of this Network is trained"):
        ProjectedOptimizer(torch.optim.SGD(model.parameters(), lr=1), model, basis)


def test_a_step_without_gradients_and_a_foreign_state_are_refused() -> None:
    model, optimizer = made()
    with pytest.raises(InputError, match="no parameter has a gradient"):
        optimizer.step()
    with pytest.raises(ArtifactError, match="has no projection"):
        optimizer.load_state_dict(torch.optim.AdamW(model.parameters()).state_dict())
    wide = Network(width=20)
    other = ProjectedOptimizer(torch.optim.AdamW(wide.parameters()), wide, basis_of(wide))
    with pytest.raises(ArtifactError, match="another model"):
        optimizer.load_state_dict(other.state_dict())
    with pytest.raises(ConfigError, match="cannot be added"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    with pytest.raises(ConfigError, match="a projection already"):
        ProjectedOptimizer(optimizer, model, basis_of(model))


def test_parameters_that_are_spread_over_ranks_are_refused() -> None:
    model = Network()
    basis = basis_of(model)
    model.head.weight.ds_id = 3  # as ZeRO 3 marks them
    with pytest.raises(EngineError, match="ZeRO 3"):
        ProjectedOptimizer(torch.optim.SGD(model.parameters(), lr=1), model, basis)
