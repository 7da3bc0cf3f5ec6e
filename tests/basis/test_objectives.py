"""Reference losses: what the table names is there, and each keeps to what it says of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from data_registry.core.errors import ArtifactError
from data_registry.prepared import load_prepared
from pipelines.basis.objectives.finding import reference_loss
from pipelines.basis.references import SAMPLES_FILE, ReferenceSet, read_references, write_references
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.objectives import OBJECTIVES
from pipelines.engine.shards.opening import open_shards
from pipelines.passes.engine import ReferenceEngine
from pipelines.passes.log_probs import add_loss_head
from pipelines.tokens.fitting import Bounds
from pipelines.tokens.tokenizer import load_tokenizer
from tests.distributed import worlds
from tests.reference import plain

NAMES = tuple(OBJECTIVES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("objectives")
    return {
        "model": worlds.make_model(directory / "model"),
        "sft": worlds.make_data(directory / "data", 5, seed=1),
        "preference": worlds.make_pairs(directory / "pairs", 5, seed=2),
    }


def encoded(world: dict[str, Path], name: str) -> tuple[ReferenceSet, Any]:
    """All samples of a loss, with what it needs of the model, and the model."""
    loss = reference_loss(name)
    rows, _ = load_prepared(world[loss.task], task=loss.task)
    samples = loss.encode(rows, load_tokenizer(world["model"]), Bounds(2048), name="data")
    model = AutoModelForCausalLM.from_pretrained(world["model"], dtype=torch.float32)
    add_loss_head(model)
    engine = ReferenceEngine(model, open_shards(model))
    return ReferenceSet("data", loss.with_start_values(samples, engine, batch_size=2, pad_token_id=0), loss), model


@pytest.mark.parametrize("name", NAMES)
def test_the_table_leads_to_a_loss_of_that_name(name: str) -> None:
    assert reference_loss(name).name == name
    assert f"{name}: " in OBJECTIVES[name].help
    assert BuildBasisConfig(model="m", reference=[Path("r")], out=Path("o"), objective=name).objective == name


def test_the_options_are_the_names_of_the_table_and_know_no_torch() -> None:
    field = BuildBasisConfig.model_json_schema()["properties"]["objective"]
    assert tuple(field["enum"]) == NAMES
    code = "import sys, pipelines.configs.build_basis; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_in_a_basis_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"'later'.*knows sft, dpo, sft-pairs"):
        reference_loss("later")


@pytest.mark.parametrize("name", NAMES)
def test_samples_survive_being_kept_with_a_basis(world: dict[str, Path], name: str, tmp_path: Path) -> None:
    reference, _ = encoded(world, name)
    assert reference.num_rows == 5
    write_references(tmp_path, [reference])
    assert pq.read_schema(tmp_path / SAMPLES_FILE).names == ["objective", "kind", *reference.loss.columns]
    (again,) = read_references(tmp_path)
    assert (again.name, again.loss.name, again.samples) == ("data", name, reference.samples)
    (fewer,) = read_references(tmp_path, 2)
    assert fewer.num_rows == 2
    assert fewer.samples == reference.samples[: 2 * reference.loss.samples_per_row]


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_a_batch_is_the_sum_over_its_units(world: dict[str, Path], name: str) -> None:
    reference, model = encoded(world, name)
    loss, samples = reference.loss, reference.samples
    loss_sum = loss.loss_sum(0.2 if loss.takes_beta else None)
    with torch.no_grad():
        whole = loss_sum(model, loss.collate(samples, 0))
        apart = sum(loss_sum(model, loss.collate([sample], 0)) for sample in samples)
        if loss.needs_start_values:
            wanted = plain.mean_preference_loss(model, model, samples, 0.2)
        else:
            wanted = plain.mean_token_loss(model, samples)
    assert whole.dtype == torch.float32
    assert whole.shape == ()
    assert float(whole) == pytest.approx(float(apart), rel=1e-5)
    assert float(whole) / reference.num_units == pytest.approx(float(wanted), rel=1e-5)
