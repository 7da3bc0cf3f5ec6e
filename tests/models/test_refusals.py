"""Everything that must not be loaded as a model, and what the error says of it."""

import json
from pathlib import Path

import pytest
from transformers import LlamaForSequenceClassification

from data_registry.core.errors import InputError
from pipelines.models.reference import resolve_model
from tests.models.small_models import refusal, tiny


def change_config(directory: Path, **changes) -> None:
    config = json.loads((directory / "config.json").read_text())
    config.update(changes)
    (directory / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_missing_directory_is_not_looked_for_on_the_hub(tmp_path):
    assert "does not exist" in str(refusal(tmp_path / "missing"))
    assert "does not exist" in str(refusal("./missing"))


def test_a_misspelt_directory_is_suggested(model_dir, monkeypatch):
    monkeypatch.chdir(model_dir.parent)
    error = refusal("modle")
    assert "neither the hub can be reached nor has its cache a copy" in error.what
    assert "did you mean 'model'" in str(error)


def test_a_file_is_no_model(model_dir):
    assert "is a file" in str(refusal(model_dir / "model.safetensors"))


def test_a_revision_goes_with_the_hub_only(model_dir):
    with pytest.raises(InputError, match="--revision main is for models on the hub"):
        resolve_model(str(model_dir), revision="main")


def test_an_empty_directory_is_no_model(tmp_path):
    assert "has no config.json" in str(refusal(tmp_path))


def test_damaged_weights_name_the_file(model_dir):
    file = model_dir / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    error = refusal(model_dir)
    assert "'model.safetensors' is damaged" in error.what
    file.write_bytes(b"not safetensors at all")
    assert "'model.safetensors' is damaged" in refusal(model_dir).what


def test_missing_and_damaged_shards_are_named(sharded_dir):
    shards = sorted(sharded_dir.glob("model-*.safetensors"))
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    assert shards[1].name in refusal(sharded_dir).what
    shards[1].unlink()
    error = refusal(sharded_dir)
    assert "1 of 9 weight files are missing" in error.what
    assert error.where == shards[1].name


def test_pickled_weights_are_refused_with_the_conversion(model_dir):
    (model_dir / "model.safetensors").unlink()
    (model_dir / "pytorch_model.bin").write_bytes(b"never opened")
    error = refusal(model_dir)
    assert "pickled (pytorch_model.bin)" in error.what
    assert "save_pretrained" in str(error.fix)


def test_a_model_without_weights_is_refused(model_dir):
    (model_dir / "model.safetensors").unlink()
    assert "holds no weights" in refusal(model_dir).what


def test_weights_that_the_files_lack_are_never_made_up(model_dir):
    change_config(model_dir, num_hidden_layers=3)
    error = refusal(model_dir)
    assert "9 weights" in error.what
    assert "model.layers.2.input_layernorm.weight" in str(error.where)


def test_an_untied_head_that_was_not_saved_is_missed(model_dir):
    change_config(model_dir, tie_word_embeddings=False)
    assert refusal(model_dir).where == "lm_head.weight"


def test_weights_of_other_shapes_name_the_first(model_dir):
    change_config(model_dir, intermediate_size=48)
    error = refusal(model_dir)
    assert "model.layers.0.mlp.down_proj.weight is [16, 32] in model.safetensors and should be [16, 48]" in error.what


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "lama"}, "does not know model type 'lama' (did you mean 'llama'?)"),
        ({"model_type": None}, "names no model_type"),
        ({"model_type": "t5"}, "is not a causal language model"),
        ({"hidden_size": "large"}, "hidden_size"),
        ({"num_attention_heads": 3}, "attention heads"),
        ({"model_type": "newest", "auto_map": {"AutoModelForCausalLM": "code.Model"}}, "brings its own code"),
    ],
)
def test_configurations_that_cannot_be_used(model_dir, changes, message):
    change_config(model_dir, **changes)
    assert message in str(refusal(model_dir))


def test_a_damaged_configuration_is_named(model_dir):
    (model_dir / "config.json").write_text("{")
    error = refusal(model_dir)
    assert "'config.json' cannot be read" in error.what
    assert error.where == str(model_dir / "config.json")


def test_a_classifier_is_no_language_model(model_dir):
    LlamaForSequenceClassification(tiny().config).save_pretrained(model_dir)
    assert "is not a causal language model but LlamaForSequenceClassification" in refusal(model_dir).what


def test_an_unknown_attention_is_refused(model_dir):
    assert "attention 'flesh'" in refusal(model_dir, attention="flesh").what
