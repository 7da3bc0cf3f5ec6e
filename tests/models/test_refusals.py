"""Everything that must not be loaded as a model, and what the error says of it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForSequenceClassification

from data_registry.core.errors import InputError
from pipelines.models.files import check_config
from pipelines.models.loading import check_loadable
from pipelines.models.reference import resolve_model
from pipelines.models.summary import summarize_model
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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quantised (bitsandbytes, 4 bits)"),
        ({"load_in_8bit": True, "load_in_4bit": False}, "quantised (bitsandbytes, 8 bits)"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "quantised (gptq, 4 bits)"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "quantised (fp8)"),
        ({}, "are quantised;"),
    ],
)
def test_quantised_weights_are_refused_with_their_kind(model_dir, settings, said):
    change_config(model_dir, quantization_config=settings)
    error = refusal(model_dir)
    assert said in error.what
    assert error.where == f"quantization_config in {model_dir / 'config.json'}"
    assert "name the model that it was made from" in str(error.fix)
    assert any("quantised" in problem for problem in summarize_model(model_dir).problems)


def test_quantised_weights_of_one_part_and_of_an_adapter_s_base(model_dir, tmp_path):
    change_config(model_dir, text_config={"quantization_config": {"quant_method": "awq"}})
    assert "text_config.quantization_config" in str(refusal(model_dir).where)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(model_dir)})
    )
    assert "quantised (awq)" in refusal(adapter).what


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model.layers.0.mlp.up_proj.weight", torch.int8),
        ("model.layers.0.mlp.up_proj.weight", torch.uint8),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", torch.float32),
        ("model.layers.1.mlp.up_proj.qweight", torch.int32),
        ("model.layers.1.mlp.up_proj.weight.absmax", torch.float32),
        ("model.layers.1.mlp.experts.gate_up_proj_blocks", torch.uint8),
    ],
)
def test_codes_are_not_taken_for_weights_where_the_configuration_is_silent(model_dir, name, dtype):
    file = model_dir / "model.safetensors"
    save_file({**load_file(file), name: torch.ones(4, 4).to(dtype)}, file, metadata={"format": "pt"})
    error = refusal(model_dir)
    assert f"are quantised: '{name}'" in error.what


def test_masks_and_positions_of_old_checkpoints_are_no_quantised_weights(model_dir):
    file = model_dir / "model.safetensors"
    more = {"model.layers.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8), "position_ids": torch.arange(4)}
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})
    check_loadable(resolve_model(str(model_dir)))


@pytest.mark.parametrize("content", ["{", "", "[1]", "null"])
def test_generation_options_that_cannot_be_read_are_not_left_out_in_silence(model_dir, content):
    (model_dir / "generation_config.json").write_text(content)
    assert "'generation_config.json'" in refusal(model_dir).what


@pytest.mark.parametrize("architectures", [["BertLMHeadModel"], None])
def test_an_encoder_that_sees_what_comes_next_is_no_language_model(model_dir, architectures):
    change_config(model_dir, model_type="bert", architectures=architectures)
    assert "reads text in both directions" in refusal(model_dir).what


def test_an_encoder_that_was_made_to_generate_is_one(model_dir):
    change_config(model_dir, model_type="bert", architectures=["BertLMHeadModel"], is_decoder=True)
    check_config(model_dir, trust_remote_code=False)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", ["</s>", [2, "</s>"], True, 2.0])
def test_special_tokens_that_are_no_numbers(model_dir, file, value):
    content = json.loads((model_dir / file).read_text())
    (model_dir / file).write_text(json.dumps({**content, "eos_token_id": value}))
    assert "eos_token_id" in str(refusal(model_dir))


def test_what_is_known_without_the_weights_is_said_before_any_work(model_dir):
    check_loadable(resolve_model(str(model_dir)))
    change_config(model_dir, quantization_config={"quant_method": "fp8"})
    with pytest.raises(InputError, match="quantised"):
        check_loadable(resolve_model(str(model_dir)))


def test_a_damaged_configuration_is_named(model_dir):
    (model_dir / "config.json").write_text("{")
    error = refusal(model_dir)
    assert "'config.json' cannot be read" in error.what
    assert error.where == str(model_dir / "config.json")


def test_an_index_that_is_not_used_is_not_missed(model_dir):
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (model_dir / "model.safetensors.index.json").write_text(json.dumps(index))
    assert summarize_model(model_dir).problems == ()
    (model_dir / "model.safetensors").rename(model_dir / "model-00001-of-00002.safetensors")
    assert summarize_model(model_dir).problems == ("model-00001-of-00001.safetensors is missing",)


def test_a_classifier_is_no_language_model(model_dir):
    LlamaForSequenceClassification(tiny().config).save_pretrained(model_dir)
    assert "is not a causal language model but LlamaForSequenceClassification" in refusal(model_dir).what


def test_an_unknown_attention_is_refused(model_dir):
    assert "attention 'flesh'" in refusal(model_dir, attention="flesh").what
