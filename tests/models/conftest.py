"""Small models, and no network."""

from pathlib import Path

import pytest

from tests.models.small_models import tiny


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    # The library reads the variable when it is imported; nothing in these tests may wait for a network.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def model_dir(tmp_path) -> Path:
    tiny().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sharded_dir(tmp_path) -> Path:
    tiny().save_pretrained(tmp_path / "sharded", max_shard_size="4KB")
    return tmp_path / "sharded"
