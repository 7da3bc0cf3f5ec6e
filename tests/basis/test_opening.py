"""What training gets of a basis in one call: rows and batches of the reference passes, or a refusal that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from data_registry.core.errors import ArtifactError, BasisMismatchError, InputError
from pipelines.basis.description import DESCRIPTION_FILE, BasisDescription
from pipelines.basis.opening import TrainingBasis, open_basis_for_training
from pipelines.commands import build_basis
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.engine.shards.opening import open_shards
from pipelines.models.reference import resolve_model
from pipelines.passes.gradients import reference_gradients
from pipelines.passes.log_probs import add_loss_head
from tests.distributed import worlds

NUM_SAMPLES = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a basis of two token objectives, and one of a preference objective."""
    directory = tmp_path_factory.mktemp("opening")
    worlds.make_model(directory / "model")
    data = [worlds.make_data(directory / name, 9, seed=seed) for seed, name in enumerate(("alpha", "beta"))]
    pairs = worlds.make_pairs(directory / "pairs", 7, seed=3)
    common: dict[str, Any] = {"model": str(directory / "model"), "num_samples": NUM_SAMPLES, "precision": "fp32"}
    build_basis.run(BuildBasisConfig(**common, reference=data, out=directory / "tokens"))
    build_basis.run(BuildBasisConfig(**common, reference=[pairs], objective="dpo", out=directory / "preference"))
    return directory


def opened(world: Path, basis: str = "tokens", **options: Any) -> tuple[TrainingBasis, Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)
    add_loss_head(model)
    access = open_shards(model)
    fingerprint = resolve_model(str(world / "model")).fingerprint()
    given = {"architecture": "LlamaForCausalLM", "model_fingerprint": fingerprint, "pad_token_id": 0, **options}
    return open_basis_for_training(world / basis, access, **given), access, model


def test_a_basis_with_a_template_of_its_own_records_the_data_of_each_objective(world: Path, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text((world / "model" / "chat_template.jinja").read_text())
    built = build_basis.run(
        BuildBasisConfig(
            model=str(world / "model"), reference=[world / "alpha", world / "beta"], num_samples=2, precision="fp32",
            chat_template=template, out=tmp_path / "basis",
        )
    )  # fmt: skip
    description = json.loads((built.path / DESCRIPTION_FILE).read_text())
    assert [Path(record["data"]).name for record in description["objectives"]] == ["alpha", "beta"]


@pytest.mark.parametrize(("basis", "names"), [("tokens", ["alpha", "beta"]), ("preference", ["pairs"])])
def test_a_refresh_at_the_same_weights_gives_the_stored_rows(world: Path, basis: str, names: list[str]) -> None:
    found, access, model = opened(world, basis)
    assert [objective.name for objective in found.objectives] == names
    assert found.is_current
    again = reference_gradients(access, model, found.loss_sum, found.objectives)
    assert len(found.rows) == len(access.shards)
    assert all(torch.equal(stored, row) for stored, row in zip(found.rows, again.rows, strict=True))
    assert again.losses == [record.loss for record in found.description.objectives]


def test_fewer_samples_are_the_first_ones_and_make_the_rows_stale(world: Path) -> None:
    whole, _, _ = opened(world)
    fewer, _, _ = opened(world, num_samples=2)
    assert (whole.is_current, fewer.is_current) == (True, False)
    assert [sum(len(batch["input_ids"]) for batch in objective.batches) for objective in fewer.objectives] == [2, 2]
    assert all(0 < few.total < all_.total for few, all_ in zip(fewer.objectives, whole.objectives, strict=True))
    as_many, _, _ = opened(world, num_samples=NUM_SAMPLES)
    assert as_many.is_current
    assert all(torch.equal(a, b) for a, b in zip(fewer.rows, whole.rows, strict=True))


def test_rows_of_another_model_or_of_adapters_are_stale(world: Path) -> None:
    assert not opened(world, model_fingerprint="another")[0].is_current
    description = opened(world)[0].description
    adapted = description.model_copy(update={"lora": {"rank": 4}})
    assert not adapted.holds_for(description.model_fingerprint)


def test_a_basis_for_other_parameters_is_refused_by_their_name(world: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)
    model.lm_head.requires_grad_(False)
    with pytest.raises(BasisMismatchError, match="20 parameters of Other") as caught:
        open_basis_for_training(
            world / "tokens", open_shards(model), architecture="Other", model_fingerprint="any", pad_token_id=0
        )
    assert "lm_head.weight is absent here" in str(caught.value.where)


def test_what_is_no_basis_is_refused(world: Path) -> None:
    with pytest.raises(InputError):
        opened(world, "nothing")
    with pytest.raises(ArtifactError, match="where a basis is needed"):
        opened(world, "alpha")


def test_a_description_of_an_earlier_version_is_read(world: Path) -> None:
    """It had a scope, which is an option of training now."""
    text = json.loads((world / "tokens" / DESCRIPTION_FILE).read_text())
    assert "scope" not in text
    assert BasisDescription.model_validate({**text, "scope": "tensor"}) == BasisDescription.model_validate(text)
    with pytest.raises(ValidationError):
        BasisDescription.model_validate({**text, "scopes": "tensor"})
