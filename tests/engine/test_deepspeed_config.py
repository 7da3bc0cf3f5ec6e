"""DeepSpeed presets, and files of the user's own that projection could not serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_registry.core.errors import ConfigError, InputError
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.core.config import resolve
from pipelines.engine.deepspeed_config import deepspeed_config


def options(**given: Any) -> BuildBasisConfig:
    return resolve(BuildBasisConfig, flags={"model": "m", "reference": [Path("r")], "out": Path("o"), **given})


def test_presets() -> None:
    assert deepspeed_config(options(), on_cpu=True) is None
    two = deepspeed_config(options(zero=2, offload=True), on_cpu=True)
    assert two is not None
    assert two["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert two["bf16"] == {"enabled": True}
    # Stage 1 with fp32 accumulation would be the optimizer that keeps whole gradients on every rank.
    one = deepspeed_config(options(zero=1), on_cpu=True)
    assert one is not None
    assert "data_types" not in one


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"zero_optimization": {"stage": 2, "round_robin_gradients": True}}, "round_robin_gradients"),
        ({"managed_gradient_accumulation": False}, "managed_gradient_accumulation"),
        ({"optimizer": {"type": "AdamW"}}, "--learning-rate"),
        ({"fp16": {"enabled": True}}, "bf16"),
        ([1, 2], "no JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_files_that_cannot_be_served(tmp_path: Path, content: Any, word: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=word):
        deepspeed_config(options(deepspeed=path), on_cpu=True)


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--offload needs"):
        options(offload=True, zero=1)
    with pytest.raises(ConfigError, match="already names"):
        options(zero=2, deepspeed=tmp_path / "ds.json")
    with pytest.raises(InputError, match="does not exist"):
        deepspeed_config(options(deepspeed=tmp_path / "none.json"), on_cpu=True)
