"""Frozen weights in four bits: what is asked of the libraries, and where it is refused."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from data_registry.core.errors import ConfigError
from pipelines.commands import build_basis, train_dpo, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.core.config import resolve
from pipelines.models import four_bits, loading
from pipelines.models.reference import resolve_model
from tests.distributed import worlds

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("four-bits")
    worlds.make_model(directory / "model")
    worlds.make_data(directory / "data", 8, seed=1)
    worlds.make_pairs(directory / "pairs", 8, seed=2)
    return directory


def config_of(world: Path, **given: Any) -> TrainSftConfig:
    values: dict[str, Any] = {"lora_rank": 2, "load_in_4bit": True, **given}
    return TrainSftConfig(model=str(world / "model"), data=[world / "data"], out=world / "run", **values)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_without_cuda_every_command_refuses_it_before_anything_is_loaded(world: Path) -> None:
    pairs = TrainDpoConfig(
        model=str(world / "model"), data=[world / "pairs"], out=world / "dpo", lora_rank=2, load_in_4bit=True
    )
    basis = BuildBasisConfig(
        model=str(world / "model"), reference=[world / "data"], out=world / "basis", lora_rank=2, load_in_4bit=True
    )
    with mock.patch.object(loading, "_load_weights", side_effect=AssertionError("loaded")):
        for run, config in (
            (train_sft.run, config_of(world)),
            (train_sft.plan, config_of(world)),
            (train_dpo.run, pairs),
            (build_basis.run, basis),
        ):
            with pytest.raises(ConfigError, match="--load-in-4bit computes on a GPU with CUDA"):
                run(config)  # type: ignore[operator]


def test_without_bitsandbytes_it_names_the_extra(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="bitsandbytes") as caught:
        four_bits.check_four_bits(config_of(world))
    assert caught.value.fix == "pip install 'ogpsa[gpu]'"
    four_bits.check_four_bits(config_of(world, load_in_4bit=False))


@pytest.mark.parametrize(("precision", "compute"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_what_is_asked_of_transformers_and_peft(
    world: Path, precision: str, compute: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.50.2" if name == "bitsandbytes" else version(name)
    )
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    asked: dict[str, Any] = {}
    load = loading._load_weights

    def loaded(directory: Path, kinds: dict[str, Any], *others: Any) -> Any:
        asked.update(kinds)
        return load(directory, {"dtype": torch.bfloat16}, *others)

    monkeypatch.setattr(loading, "_load_weights", loaded)
    config = config_of(world, precision=precision)
    model = loading.load_training_model(config, resolve_model(config.model))
    settings = asked["quantization_config"]
    assert settings.load_in_4bit
    assert (settings.bnb_4bit_quant_type, settings.bnb_4bit_use_double_quant) == ("nf4", True)
    assert settings.bnb_4bit_compute_dtype == asked["dtype"] == compute
    assert asked["device_map"] == {"": 3}
    # As PEFT prepares it: nothing is trained but adapters, and what is not in four bits is in float32.
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_zero_3_is_refused(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"model": "m", "data": ["d"], "out": "o", "lora_rank": 2, "load_in_4bit": True, "zero": 3}
    with pytest.raises(ConfigError, match="--load-in-4bit does not go with --zero 3"):
        resolve(TrainSftConfig, flags=flags)
    monkeypatch.setattr("transformers.integrations.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ConfigError, match="ZeRO 3"):
        four_bits.four_bit_options("bf16")


def test_what_is_stored_of_the_starting_model_is_kept_apart(world: Path) -> None:
    assert four_bits.arithmetic_of(config_of(world)) == "bf16, nf4"
    assert four_bits.arithmetic_of(config_of(world, load_in_4bit=False)) == "bf16"


@pytest.mark.gpu
@NEEDS_CUDA
def test_a_run_saves_adapters_alone(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    config = config_of(world, max_steps=2, learning_rate=1e-3).model_copy(update={"out": tmp_path / "run"})
    run = train_sft.run(config).path
    names = {path.name for path in (run / "model").iterdir()}
    assert "adapter_model.safetensors" in names
    assert "model.safetensors" not in names
    losses = [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert len(losses) == 2
