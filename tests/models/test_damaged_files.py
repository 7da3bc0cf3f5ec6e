"""Model files with values that make libraries fail in their own ways: an error that names the file, never a bug."""

import json
from pathlib import Path

import pytest

from data_registry.core.errors import InputError
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.models.summary import summarize_model
from pipelines.tokens.tokenizer import load_source_tokenizer
from tests.faults.model_files import campaign, make_models
from tests.models.small_models import refusal
from tests.models.test_refusals import change_config

VALUES = [
    {"hidden_size": "x"}, {"hidden_size": -16}, {"hidden_size": 0}, {"hidden_size": [16]}, {"hidden_size": 10**12},
    {"num_attention_heads": 0}, {"num_attention_heads": -2}, {"num_key_value_heads": 0}, {"num_hidden_layers": "two"},
    {"num_hidden_layers": 10**9}, {"vocab_size": 10**12}, {"vocab_size": -1}, {"architectures": [1, {}]},
    {"architectures": "LlamaForCausalLM"}, {"architectures": {"a": 1}}, {"model_type": 7}, {"model_type": ["llama"]},
    {"hidden_act": "flesh"}, {"hidden_act": 3}, {"rope_parameters": {"rope_type": "none such"}}, {"head_dim": 0},
    {"rope_parameters": 7}, {"dtype": "float99"}, {"transformers_weights": "../w.safetensors"}, {"torch_dtype": 5},
    {"quantization_config": {"quant_method": "none such"}}, {"quantization_config": 3}, {"text_config": 5},
    {"intermediate_size": None}, {"max_position_embeddings": "long"}, {"layer_types": ["none such", "other"]},
    {"attention_bias": "maybe"}, {"pretraining_tp": 0}, {"rms_norm_eps": "small"}, {"id2label": 3},
]  # fmt: skip
# Values that transformers itself puts right, or that a model loads with.
HARMLESS = (
    {"text_config": 5}, {"pretraining_tp": 0}, {"torch_dtype": 5},
    {"quantization_config": {"quant_method": "none such"}},
)  # fmt: skip


def try_everything(directory: Path) -> str:
    """What every command does with a model; the text of the refusal, or nothing."""
    summarize_model(directory)
    try:
        source = resolve_model(str(directory))
        source.fingerprint()
        load_model(source, precision="fp32")
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("changes", VALUES, ids=str)
def test_values_of_a_configuration_that_cannot_be_used(model_dir, changes):
    change_config(model_dir, **changes)
    said = try_everything(model_dir)
    assert len(said) < 1500
    assert bool(said) or changes in HARMLESS


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "7", '{"model_type": ' + DEEP + "}", '{"a": ' + "9" * 5000 + "}", "{'a': 1}", "\ufeff{}"]
)
def test_files_that_are_no_configuration(model_dir, text):
    (model_dir / "config.json").write_text(text)
    assert "config.json" in try_everything(model_dir)


@pytest.mark.parametrize("raw", [b"\xff\xfe{}", b"\x00" * 64, b"\x80abc"])
def test_bytes_that_are_no_text(model_dir, raw):
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        (model_dir / name).write_bytes(raw)
    assert "config.json" in try_everything(model_dir)
    with pytest.raises(InputError):
        load_source_tokenizer(resolve_model(str(model_dir)))


WORDS = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
}
# transformers falls back on a class that it knows, or takes the number for text.
HARMLESS_TO_TOKENIZERS = ({"tokenizer_class": "NoneSuch" * 50}, {"eos_token": 5})
PLAIN = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "a"}


@pytest.mark.parametrize(
    ("tokenizer", "config"),
    [
        ({}, {"model_max_length": "long"}), ({}, {"model_max_length": [5]}), ({}, {"model_max_length": True}),
        ({}, {"eos_token": 5}), ({}, {"added_tokens_decoder": 5}), ({}, {"added_tokens_decoder": {"x": {}}}),
        ({}, {"tokenizer_class": 7}), ({}, {"tokenizer_class": "NoneSuch" * 50}), ({}, {"extra_special_tokens": 5}),
        ({"model": 5}, {}), ({"model": {"type": "BPE"}}, {}),
        ({"model": {"type": "BPE", "vocab": {}, "merges": [1]}}, {}),
        ({"added_tokens": 5}, {}), ({"pre_tokenizer": {"type": "None"}}, {}), ({"version": 9}, {}),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}}, {}),
    ],
)  # fmt: skip
def test_damaged_tokenizers(model_dir, tokenizer, config):
    (model_dir / "tokenizer.json").write_text(json.dumps({**WORDS, **tokenizer}))
    (model_dir / "tokenizer_config.json").write_text(json.dumps({**PLAIN, **config}))
    said = ""
    try:
        load_source_tokenizer(resolve_model(str(model_dir)))
    except InputError as error:
        said = str(error)
    assert len(said) < 1500
    assert said or config in HARMLESS_TO_TOKENIZERS


def test_damage_of_the_configuration_is_not_laid_on_the_tokenizer(model_dir):
    (model_dir / "tokenizer.json").write_text(json.dumps(WORDS))
    (model_dir / "tokenizer_config.json").write_text(json.dumps(PLAIN))
    assert load_source_tokenizer(resolve_model(str(model_dir))).pad_token == "a"
    change_config(model_dir, num_attention_heads=0)
    with pytest.raises(InputError, match=r"the config\.json of") as caught:
        load_source_tokenizer(resolve_model(str(model_dir)))
    assert caught.value.where == str(model_dir / "config.json")


def test_an_index_that_is_none(sharded_dir):
    for text in ("{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', DEEP):
        (sharded_dir / "model.safetensors.index.json").write_text(text)
        summarize_model(sharded_dir)
        assert "index.json" in str(refusal(sharded_dir))


def test_damage_at_random_is_never_a_bug(tmp_path):
    outcomes, findings = campaign(15, seed=7, models=make_models(tmp_path))
    assert findings == []
    assert set(outcomes) == {"refused, exit 2", "loaded"}
