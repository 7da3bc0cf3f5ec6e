"""Models of the hub, out of reach: what was fetched loads, and what was not is named."""

from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import errors
from peft import LoraConfig, get_peft_model

from data_registry.core.errors import InputError
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from tests.models.small_models import TOKENS, refusal, tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of the hub in which org/tiny was fetched beforehand."""
    root = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    repository = root / "models--org--tiny"
    tiny(seed=4).save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_a_model_fetched_beforehand_loads_without_a_network(cache):
    source = resolve_model("org/tiny")
    assert (source.path_or_id, source.revision, source.name) == ("org/tiny", COMMIT, "tiny")
    assert source.fingerprint() == COMMIT
    assert source.input_record().path == "org/tiny"
    model = load_model(source, precision="fp32")
    torch.testing.assert_close(model(TOKENS).logits, tiny(seed=4).eval()(TOKENS).logits, rtol=0, atol=0)
    assert model.name_or_path == "org/tiny"


def test_a_revision_that_was_not_fetched_is_named(cache):
    assert resolve_model("org/tiny", revision=COMMIT).revision == COMMIT
    with pytest.raises(InputError, match="nor has its cache revision 'v2' of it"):
        resolve_model("org/tiny", revision="v2")


def test_a_model_of_which_only_the_configuration_was_fetched(cache):
    (cache / "snapshots" / COMMIT / "model.safetensors").unlink()
    error = refusal("org/tiny")
    assert "holds no weights" in error.what


def test_a_repository_that_is_no_model(cache):
    (cache / "snapshots" / COMMIT / "config.json").unlink()
    assert "on the hub is not a model for transformers" in refusal("org/tiny").what


def test_an_adapter_on_a_hub_model_finds_it_again(cache, tmp_path):
    base = load_model(resolve_model("org/tiny"), precision="fp32")
    get_peft_model(base, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path / "adapter")
    source = resolve_model(str(tmp_path / "adapter"))
    assert source.base is not None
    assert source.base.path_or_id == "org/tiny"


@pytest.mark.parametrize("reference", ["a..b/c", "org/none"])
def test_what_is_neither_here_nor_there(cache, reference):
    assert "is no directory here" in refusal(reference).what


def failing(kind: type[Exception]):
    """A download that fails as the hub would make it fail, without a response to build it from."""

    def snapshot_download(*_, **__):
        error = kind.__new__(kind)
        Exception.__init__(error, "403 or 404")
        error.response = SimpleNamespace(status_code=403)
        raise error

    return snapshot_download


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.GatedRepoError, "needs its terms accepted on the hub"),
        (errors.RepositoryNotFoundError, "is neither a directory here nor a model on the hub"),
        (errors.RevisionNotFoundError, "has no revision 'v2'"),
        (errors.HfHubHTTPError, "cannot be fetched from the hub: 403 or 404"),
        (OSError, "cannot be fetched from the hub"),
    ],
)
def test_what_the_hub_refuses_is_explained(monkeypatch, kind, message):
    monkeypatch.setattr("huggingface_hub.snapshot_download", failing(kind))
    with pytest.raises(InputError) as caught:
        resolve_model("org/name", revision="v2")
    assert message in caught.value.what


def test_weights_are_fetched_when_they_are_needed_and_not_before(cache, monkeypatch):
    folder, asked = cache / "snapshots" / COMMIT, []
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()

    def snapshot_download(reference, *, revision, allow_patterns):
        asked.append((reference, revision))
        if any(fnmatch("model.safetensors", pattern) for pattern in allow_patterns):
            (folder / "model.safetensors").write_bytes(weights)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    source = resolve_model("org/tiny")
    assert not (folder / "model.safetensors").exists()
    load_model(source, precision="fp32")
    assert asked == [("org/tiny", None), ("org/tiny", COMMIT)]
