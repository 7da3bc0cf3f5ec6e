"""Which layers get adapters, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from data_registry.core.errors import ConfigError
from pipelines.commands import train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.config import resolve
from pipelines.models.lora import add_adapters, lora_settings
from pipelines.models.lora_layers import layer_numbers
from tests.distributed import worlds


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("all", range(24)),
        ("last:8", range(16, 24)),
        ("first:2", [0, 1]),
        ("0-3,20", [0, 1, 2, 3, 20]),
        ("5, 3-4,4", [3, 4, 5]),
        ("23", [23]),
    ],
)
def test_layers_by_name(text: str, numbers: Any) -> None:
    config = TrainSftConfig(model="m", data=[Path("d")], out=Path("o"), lora_rank=1, lora_layers=text)
    assert layer_numbers(config.lora_layers, 24) == list(numbers)


@pytest.mark.parametrize("text", ["", "last", "last:0", "last:-1", "3-1", "a", "1-", "-1", "1,,2", "last:8,1", "1.5"])
def test_what_names_no_layers_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--lora-layers"):
        resolve(TrainSftConfig, flags={"model": "m", "data": ["d"], "out": "o", "lora_rank": 1, "lora_layers": text})


@pytest.mark.parametrize(("text", "words"), [("last:25", "more than the model's 24"), ("24", "from 0 to 23")])
def test_layers_that_are_not_there_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        layer_numbers(text, 24)


def small() -> Any:
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=4, num_key_value_heads=2, vocab_size=40))


def adapters(model: Any) -> set[str]:
    return {name for name, _ in model.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("targets", ["all-linear", "q_proj,down_proj"])
def test_adapters_are_in_those_layers_alone(targets: str) -> None:
    settings = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": targets}
    names = {
        layers: adapters(add_adapters(small(), {**settings, **layers_of}, seed=0))
        for layers, layers_of in (("some", {"layers": "0,3"}), ("all", {}))
    }
    assert names["some"] == {name for name in names["all"] if ".layers.0." in name or ".layers.3." in name}
    assert len(names["some"]) == (2 * 7 * 2 if targets == "all-linear" else 2 * 2 * 2)


def test_models_without_such_layers_are_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.config = nn.Linear(2, 2), LlamaConfig()

    settings = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": "linear", "layers": "0"}
    with pytest.raises(ConfigError, match="no numbered layers"):
        add_adapters(Flat(), settings, seed=0)
    model = small()
    model.model.layers[1].self_attn.q_proj = nn.Identity()
    model.model.layers[1].self_attn.q_proj, model.model.layers[1].self_attn.other = None, nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="layer 1 has no module to adapt"):
        add_adapters(model, {**settings, "targets": "q_proj", "layers": "0-1"}, seed=0)


def test_basis_and_training_have_the_same_adapters() -> None:
    basis = BuildBasisConfig(model="m", reference=[Path("r")], out=Path("o"), lora_rank=2, lora_layers="last:1")
    run = TrainSftConfig(model="m", data=[Path("d")], out=Path("o"), lora_rank=2, lora_layers="last:1")
    assert lora_settings(basis) == lora_settings(run)
    assert lora_settings(run)["layers"] == "last:1"  # type: ignore[index]
    plain = TrainSftConfig(model="m", data=[Path("d")], out=Path("o"), lora_rank=2)
    assert "layers" not in lora_settings(plain)  # type: ignore[operator]


def test_the_rank_one_preset_trains_adapters_of_rank_one_in_the_layers_asked_for(tmp_path: Path) -> None:
    worlds.make_model(tmp_path / "model")
    worlds.make_data(tmp_path / "data", 4, seed=1)
    config = resolve(
        TrainSftConfig,
        flags={
            "model": str(tmp_path / "model"), "data": [str(tmp_path / "data")], "out": str(tmp_path / "run"),
            "preset": "rank-1", "lora_layers": "last:1", "precision": "fp32", "max_steps": 2,
        },
    )  # fmt: skip
    assert (config.lora_rank, config.lora_alpha, config.learning_rate) == (1, 32.0, 1e-4)
    assert config.from_preset()["by_hand"] == {}
    run = train_sft.run(config).path
    adapter = json.loads((run / "model" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["layers_to_transform"]) == (1, 32, [1])
    tensors = load_file(run / "model" / "adapter_model.safetensors")
    assert all(".layers.1." in name and 1 in tensor.shape for name, tensor in tensors.items())
    assert any(bool(torch.any(tensor != 0)) for name, tensor in tensors.items() if "lora_B" in name)
