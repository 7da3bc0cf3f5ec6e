"""One thread, small blocks, and a family of small models and adapters."""

from __future__ import annotations

import pytest
import torch

from pipelines.weights import stored as checkpoints
from tests.reference.merge_inputs import save_adapter, save_model


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(checkpoints, "BLOCK_ELEMENTS", 160)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base (aligned), an unaligned model, two adapters; never changed by a test."""
    root = tmp_path_factory.mktemp("inputs")
    base = save_model(root / "base", 0)
    save_model(root / "unaligned", 1)
    save_adapter(root / "task", base, 2)
    save_adapter(root / "safe", base, 3)
    return root
