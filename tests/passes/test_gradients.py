"""Reference gradients of a bare model: their values, and what they hold in memory while they are computed."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipelines.basis.objectives.tokens import token_loss_sum
from pipelines.basis.references import ReferenceSet, objectives_for_rank
from pipelines.engine.shards.opening import open_shards
from pipelines.passes.gradients import reference_gradients
from pipelines.passes.log_probs import add_loss_head
from tests.distributed import worlds
from tests.reference import plain


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[ReferenceSet]]:
    directory: Path = tmp_path_factory.mktemp("reference")
    path = worlds.make_model(directory / "model")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    add_loss_head(model)
    references = [
        ReferenceSet(name, worlds.encoded(worlds.make_data(directory / name, 10, seed=seed), path))
        for name, seed in (("alpha", 1), ("beta", 2))
    ]
    return model, references


def compute(model: Any, references: list[ReferenceSet], batch_size: int = 3) -> Any:
    objectives = objectives_for_rank(references, batch_size=batch_size, pad_token_id=0, rank=0, world_size=1)
    return reference_gradients(open_shards(model), model, token_loss_sum, objectives)


def test_rows_and_losses_are_those_of_the_mean_token_loss(setting: tuple[Any, list[ReferenceSet]]) -> None:
    model, references = setting
    result = compute(model, references)
    for j, reference in enumerate(references):
        wanted = plain.gradient(model, reference.samples)
        for row, (name, gradient) in zip(result.rows, wanted.items(), strict=True):
            error = float((row[j] - gradient.flatten()).norm() / gradient.norm())
            assert error <= 1e-5, name
        assert result.losses[j] == pytest.approx(plain.mean_token_loss(model, reference.samples).item(), rel=1e-6)


def test_leaves_no_gradient_mode_or_random_state_behind(setting: tuple[Any, list[ReferenceSet]]) -> None:
    model, references = setting
    model.eval()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = compute(model, references)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    second = compute(model, references)
    assert all(torch.equal(a, b) for a, b in zip(first.rows, second.rows, strict=True))


def test_holds_the_basis_and_one_set_of_gradients(
    setting: tuple[Any, list[ReferenceSet]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, references = setting
    weights = sum(parameter.numel() for parameter in model.parameters())
    peaks = []
    original = torch.autograd.grad

    def counting(*arguments: Any, **options: Any) -> Any:
        gradients = original(*arguments, **options)
        gc.collect()
        storages = {
            thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
            for thing in gc.get_objects()
            if isinstance(thing, torch.Tensor) and thing.is_floating_point()
        }
        peaks.append(sum(storages.values()) - before)
        return gradients

    gc.collect()
    before = sum(
        {
            thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
            for thing in gc.get_objects()
            if isinstance(thing, torch.Tensor) and thing.is_floating_point()
        }.values()
    )
    monkeypatch.setattr(torch.autograd, "grad", counting)
    compute(model, references)
    allowed = (len(references) + 1) * weights * 4
    assert len(peaks) == 6  # two batches of the longest, and one of what is shorter
    assert max(peaks) <= 1.05 * allowed
    assert max(peaks) >= 0.9 * allowed  # the count does see them
