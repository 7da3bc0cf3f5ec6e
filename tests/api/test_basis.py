"""The basis as an object: that of the command, the float64 gradient, saved and loaded, made from rows, refused."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_registry.core.errors import ArtifactError, BasisMismatchError, ConfigError, InputError, NumericsError
from pipelines import Basis, build_basis
from tests.api.small import REFERENCES, Network, basis_of, batch, loss
from tests.api.worlds import World
from tests.structure.code import ROOT


def test_it_is_the_commands_to_the_bit_and_is_saved_as_the_command_writes_it(world: World, tmp_path: Path) -> None:
    model, tokenizer = world.load()
    model.train()
    state, forward = torch.get_rng_state(), model.forward
    basis = build_basis(model, world.batches(tokenizer))
    command = Basis.load(world.basis, verify=True)
    assert basis.names == command.names == ["assist", "reason"]
    assert basis.losses == command.losses
    assert basis.shapes == command.shapes
    assert all(torch.equal(basis.rows[name], row) for name, row in command.rows.items())
    # No trace: mode, generators, gradients and the forward pass are as they were.
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert model.forward == forward
    assert all(parameter.grad is None for parameter in model.parameters())

    saved = basis.save(tmp_path / "saved")
    assert basis.save(tmp_path / "saved") == saved
    assert {path.name for path in saved.iterdir()} == {path.name for path in world.basis.iterdir()}
    first, second = (load_file(path / "gram.safetensors") for path in (saved, world.basis))
    assert all(torch.equal(first[name], second[name]) for name in second)
    mine, theirs = (json.loads((path / "basis.json").read_text()) for path in (saved, world.basis))
    same = ("dtype", "rank", "batch_size", "architecture", "shapes", "singular_values", "beta", "lora")
    assert {key: mine[key] for key in same} == {key: theirs[key] for key in same}
    counts = ("name", "kind", "num_samples", "num_tokens", "loss")
    assert [[each[key] for key in counts] for each in mine["objectives"]] == [
        [each[key] for key in counts] for each in theirs["objectives"]
    ]
    with pytest.raises(ArtifactError, match="made with other settings"):
        build_basis(model, world.batches(tokenizer)["assist"]).save(tmp_path / "saved")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ArtifactError, match="not an artifact"):
        basis.save(tmp_path / "mine")


def test_a_saved_basis_serves_the_command(world: World, tmp_path: Path) -> None:
    from pipelines.basis.references import read_references

    model, tokenizer = world.load()
    saved = build_basis(model, world.batches(tokenizer)).save(tmp_path / "saved")
    mine, theirs = (read_references(path) for path in (saved, world.basis))
    for one, other in zip(mine, theirs, strict=True):
        key = lambda sample: (sample["input_ids"], sample["labels"])  # noqa: E731
        assert sorted(map(key, one.samples)) == sorted(map(key, other.samples))


def test_rows_are_mean_gradients_computed_in_float64() -> None:
    model = Network()
    basis = basis_of(model)
    exact = Network().double()
    for j, batches in enumerate(REFERENCES.values()):
        doubled = [{key: value.double() for key, value in each.items()} for each in batches]
        mean = sum(loss(exact, each) for each in doubled) / sum(len(each["x"]) for each in doubled)
        gradients = torch.autograd.grad(mean, list(exact.parameters()))
        for (name, _), gradient in zip(exact.named_parameters(), gradients, strict=True):
            torch.testing.assert_close(basis.rows[name][j].double(), gradient.flatten(), rtol=1e-4, atol=1e-6)
        assert list(basis.losses.values())[j] == pytest.approx(mean.item(), rel=1e-6)


def test_parameters_that_are_not_trained_have_no_rows() -> None:
    model = Network()
    model.layers.requires_grad_(False)
    assert set(basis_of(model).rows) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert basis_of(model, dtype="bf16").rows["head.weight"].dtype == torch.bfloat16


def test_rows_from_elsewhere() -> None:
    model = Network()
    rows = {name: torch.randn(2, *p.shape) for name, p in model.named_parameters()}
    basis = Basis.from_rows(model, rows, ["a", "b"])
    assert basis.names == ["a", "b"]
    assert torch.equal(basis.rows["head.weight"], rows["head.weight"].flatten(1))
    assert not basis.can_refresh
    without = {name: row for name, row in rows.items() if name != "norm.bias"}
    bad = {**rows, "head.weight": torch.full((2, 3, 12), torch.nan)}
    for wrong, error, text in (
        (without, BasisMismatchError, "rows are missing for 'norm.bias'"),
        ({**rows, "more": rows["norm.bias"]}, BasisMismatchError, "'more', which is not a trained parameter"),
        ({**rows, "head.bias": torch.ones(2, 4)}, BasisMismatchError, r"'head.bias' are \[2, 4\]"),
        ({**rows, "head.bias": torch.ones(1, 3)}, BasisMismatchError, r"'head.bias' are \[1, 3\]"),
        ({**rows, "head.bias": torch.ones(2, 3).double()}, InputError, "float64"),
        (bad, NumericsError, "head.weight is not finite"),
    ):
        with pytest.raises(error, match=text):
            Basis.from_rows(model, wrong, ["a", "b"])
    with pytest.raises(InputError, match="name of its own"):
        Basis.from_rows(model, rows, ["a", "a"])
    with pytest.raises(InputError, match="cannot be saved"):
        basis.save("anywhere")


@pytest.mark.parametrize(
    ("batches", "text"),
    [
        ([], "has no batches"),
        ({}, "no reference batches"),
        ({"one": []}, "'one' has no batches"),
        (3, "a int, not an iterable"),
        ("text", "a str, not an iterable"),
        ([[1, 2]], "a batch is a dict of tensors, and this is a list"),
        ([{"input_ids": [1, 2]}], "'input_ids' is a list, not a tensor"),
        ([{"input_ids": torch.ones(1, 4).long()}], "has no 'labels'"),
        ([{"input_ids": torch.ones(1, 4).long(), "labels": torch.ones(1, 3).long()}], r"\[1, 4\] and labels \[1, 3\]"),
        ([{"input_ids": torch.ones(1, 4).long(), "labels": torch.full((1, 4), -100)}], "no token is labelled"),
    ],
)
def test_batches_that_cannot_be_used_are_named(world: World, batches: object, text: str) -> None:
    model, _ = world.load()
    with pytest.raises(InputError, match=text):
        build_basis(model, batches)  # type: ignore[arg-type]


def test_other_models_need_a_loss() -> None:
    with pytest.raises(ConfigError, match="give one"):
        build_basis(Network(), [batch(1)])
    with pytest.raises(InputError, match="have no labels"):
        build_basis(Network(), [batch(1)], loss=loss)
    with pytest.raises(ConfigError, match="dtype is 'fp64'"):
        basis_of(Network(), dtype="fp64")
    with pytest.raises(InputError, match="this is a str"):
        build_basis("gpt2", [batch(1)], loss=loss)
    with pytest.raises(NumericsError, match="is not finite"):
        build_basis(Network(), [batch(1)], loss=lambda m, b: loss(m, b) * torch.inf, units=lambda b: 1.0)


def test_importing_is_cheap_and_types_are_shipped() -> None:
    code = (
        "import sys, pipelines; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules; "
        "assert set(pipelines.__all__) <= set(dir(pipelines)); "
        "assert not hasattr(pipelines, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("pipelines", "data_registry"):
        assert "py.typed" in shipped[package]
        assert (ROOT / package / "py.typed").exists()
