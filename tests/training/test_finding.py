"""A finished run is found before the trainer is imported, if nothing that the trainer checks can have changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_registry.core.errors import ArtifactError
from pipelines.commands import prepare_data
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.artifact import write_artifact
from pipelines.core.looking import WouldWork, looking
from pipelines.models.reference import resolve_model
from pipelines.training import finding
from pipelines.training.finding import KIND, find_run
from pipelines.training.inputs import training_inputs
from tests.cli.conftest import TESTBED_MODEL


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a data set, and an artifact that says that it is a run made from them."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(TESTBED_MODEL, folder / "model")
    prepare_data.run(PrepareDataConfig(source="testbed-reason", num_samples=4, out=folder / "data"))
    config = config_in(folder)
    inputs = training_inputs(config, resolve_model(config.model), task="sft")
    with write_artifact(config.out, KIND, config, inputs) as writer:
        (writer.path / "weights").write_text("1")
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    """A copy of it; options are recorded as they were typed, so that the copy's manifest is given its own places."""
    shutil.copytree(made, tmp_path / "world")
    edit(tmp_path / "world", lambda manifest: manifest.update(config=config_in(tmp_path / "world").recorded()))
    return tmp_path / "world"


def config_in(folder: Path, **changes: Any) -> TrainSftConfig:
    values = {"model": str(folder / "model"), "data": [folder / "data"], "out": folder / "run", "max_steps": 2}
    return TrainSftConfig(**{**values, **changes}).settled()


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "run/manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_it_is_found(world: Path) -> None:
    (world / "run/.checkpoints").mkdir()
    found = find_run(config_in(world), task="sft")
    assert found is not None
    assert (found.path, found.up_to_date) == (world / "run", True)
    assert not (world / "run/.checkpoints").exists()
    # The number of processes changes nothing about what the trainer accepts.
    assert find_run(config_in(world, num_procs=1), task="sft") is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 7e-5},
        {"trainer": {"adam_beta1": 0.8}},
        {"report_to": "tensorboard"},
        {"log_every": 3},
        {"overwrite": True},
        {"max_steps": 3},
    ],
)
def test_other_options_are_left_to_training(changes: dict[str, Any], world: Path) -> None:
    assert find_run(config_in(world, **changes), task="sft") is None
    with pytest.raises(WouldWork), looking(lambda: None):
        find_run(config_in(world, **changes), task="sft")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(tool_version="0.0.1"),
        lambda manifest: manifest["environment"]["packages"].update(trl="0.0.1"),
        lambda manifest: manifest["environment"]["packages"].pop("peft"),
        lambda manifest: manifest["environment"].update(python="3.10.0"),
        lambda manifest: manifest["environment"].update(commit="0123456789ab"),
        lambda manifest: manifest["environment"].update(devices=["NVIDIA H100"]),
        lambda manifest: manifest.update(environment={}),
        lambda manifest: manifest.update(kind="basis"),
        lambda manifest: manifest.update(schema_version=99),
    ],
)
def test_another_environment_is_left_to_training(change: Callable[[dict[str, Any]], object], world: Path) -> None:
    edit(world, change)
    assert find_run(config_in(world), task="sft") is None


def test_settings_of_accelerate_are_left_to_training(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert find_run(config_in(world), task="sft") is None


def test_gpus_are_told_by_the_driver(tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        (tmp_path / f"gpus/{number}").mkdir(parents=True)
        (tmp_path / f"gpus/{number}/information").write_text("Model: \t\t NVIDIA H100\nIRQ: 1\n")
    monkeypatch.setattr(finding, "_GPU_NAMES", tmp_path / "gpus")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_run(config_in(world), task="sft") is None
    edit(world, lambda manifest: manifest["environment"].update(devices=["NVIDIA H100"] * 2))
    assert find_run(config_in(world), task="sft") is not None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert find_run(config_in(world), task="sft") is None


def other_weights(world: Path) -> None:
    file = world / "model/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_data(world: Path) -> None:
    shutil.rmtree(world / "data")
    prepare_data.run(PrepareDataConfig(source="testbed-reason", num_samples=5, out=world / "data"))


def less_of_it(world: Path) -> None:
    (world / "run/weights").unlink()


@pytest.mark.parametrize("change", [other_weights, other_data, less_of_it])
def test_what_changed_is_refused(change: Callable[[Path], None], world: Path) -> None:
    change(world)
    with pytest.raises(ArtifactError, match="made with other settings"):
        find_run(config_in(world), task="sft")


def test_nothing_there_is_left_to_training(world: Path) -> None:
    assert find_run(config_in(world, out=world / "none"), task="sft") is None
