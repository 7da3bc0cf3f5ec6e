"""How far weights have moved, from files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.models.reference import resolve_model
from pipelines.training import movement
from tests.cli.conftest import TESTBED_MODEL


@pytest.mark.parametrize("most", [10, 20_000_000])
def test_the_change_is_that_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(movement, "_MOST_NUMBERS", most)
    start = load_file(TESTBED_MODEL / "model.safetensors")
    save_file({name: tensor.float() * 1.01 for name, tensor in start.items()}, tmp_path / "model.safetensors")
    found = movement.relative_change(resolve_model(str(TESTBED_MODEL)), tmp_path)
    assert found == pytest.approx(0.01, rel=1e-3)


def test_a_model_that_is_the_same_has_not_moved(tmp_path: Path) -> None:
    assert movement.relative_change(resolve_model(str(TESTBED_MODEL)), TESTBED_MODEL) == 0.0


def test_fresh_adapters_have_no_start(tmp_path: Path) -> None:
    save_file({"base.lora_A.weight": torch.ones(2, 2)}, tmp_path / "adapter_model.safetensors")
    assert movement.relative_change(resolve_model(str(TESTBED_MODEL)), tmp_path) is None
