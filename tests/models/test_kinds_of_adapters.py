"""Adapters of every kind that people save: loaded with PEFT's own logits, or refused by name before work begins."""

import copy
import json
import logging

import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from data_registry.core.errors import InputError
from pipelines.models.adapter_config import UNFOLDABLE
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from tests.models.small_models import TOKENS, refusal, tiny

KINDS = {
    "saved embeddings": LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "whole modules": LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM"
    ),
    "trained tokens": LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[1, 3], task_type="CAUSAL_LM"),
    "embeddings": LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM"),
    "dora": LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM"),
    "rslora": LoraConfig(r=4, target_modules="all-linear", use_rslora=True, bias="lora_only", task_type="CAUSAL_LM"),
    "ia3": IA3Config(target_modules=["v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
    "loha": LoHaConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "vera": VeraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
}


def save(base, target, config, *, embeddings="auto"):
    """An adapter of random values; returns what PEFT makes of its files."""
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), copy.deepcopy(config))
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.5 * torch.randn(parameter.shape)
        if embeddings is True:
            adapted.get_input_embeddings().weight.add_(0.1 * torch.randn(50, 16))
    adapted.save_pretrained(target, save_embedding_layers=embeddings)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), target)
    return loaded.eval()(TOKENS).logits


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_those_of_peft(model_dir, tmp_path, kind):
    expected = save(model_dir, tmp_path / "a", KINDS[kind], embeddings=kind == "saved embeddings" or "auto")
    model = load_model(resolve_model(str(tmp_path / "a")), precision="fp32")
    torch.testing.assert_close(model(TOKENS).logits, expected, rtol=0, atol=1e-5)
    assert (expected - tiny().eval()(TOKENS).logits).abs().max() > 1e-4


@pytest.mark.parametrize("embeddings", ["auto", True])
@pytest.mark.parametrize("kind", ["saved embeddings", "whole modules", "embeddings", "trained tokens"])
def test_what_lies_beside_the_factors_is_saved_again_after_training(model_dir, tmp_path, kind, embeddings):
    expected = save(model_dir, tmp_path / "a", KINDS[kind], embeddings=embeddings)
    load_model(resolve_model(str(tmp_path / "a")), precision="fp32", for_training=True).save_pretrained(tmp_path / "b")
    again = load_model(resolve_model(str(tmp_path / "b")), precision="fp32")
    torch.testing.assert_close(again(TOKENS).logits, expected, rtol=0, atol=1e-5)


def test_embeddings_for_another_vocabulary_are_named(model_dir, tmp_path):
    save(model_dir, tmp_path / "a", KINDS["saved embeddings"], embeddings=True)
    file = tmp_path / "a/adapter_model.safetensors"
    longer = {name: torch.cat([t, t[:3]]) if "embed" in name else t for name, t in load_file(file).items()}
    save_file(longer, file)
    assert "saved with embeddings for 53 tokens, and its base has 50" in refusal(tmp_path / "a").what


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
def test_adapters_of_virtual_tokens_are_refused_before_anything_is_loaded(model_dir, tmp_path, kind):
    config = kind(num_virtual_tokens=3, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir), config).save_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match=f"is an adapter of type {config.peft_type.value}"):
        resolve_model(str(tmp_path / "a"))


def test_every_type_that_peft_cannot_fold_in_is_known():
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    without = {
        kind.value for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if not hasattr(tuner, "merge_and_unload")
    }
    assert without <= set(UNFOLDABLE)


def edit(directory, **changes):
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": None}, "does not say of which type"),
        ({"peft_type": "NEWEST"}, "does not fit its base model"),
        ({"rank_pattern": {"(q_proj": 4}}, "'(q_proj' in 'rank_pattern' is no regular expression"),
        ({"alpha_pattern": {"q_proj": "much"}}, "'alpha_pattern' must give a number"),
        ({"target_modules": "*_proj"}, "'*_proj' in 'target_modules' is no regular expression"),
        ({"target_modules": [1, 2]}, "'target_modules' must be text or a list of names"),
        ({"r": "eight"}, "does not fit its base model"),
        ({"r": 0}, "does not fit its base model"),
        ({"lora_alpha": None}, "does not fit its base model"),
        ({"base_model_name_or_path": 7}, "does not say which model it adapts"),
        ({"base_model_name_or_path": "a\0b"}, "does not say which model it adapts"),
        ({"alora_invocation_tokens": [1]}, "an activated LoRA"),
    ],
)
def test_configurations_of_adapters_that_cannot_be_used(model_dir, tmp_path, changes, message):
    save(model_dir, tmp_path / "a", KINDS["rslora"])
    edit(tmp_path / "a", **changes)
    assert message in str(refusal(tmp_path / "a"))


def test_an_adapter_that_names_itself_as_its_base(model_dir, tmp_path):
    for name in "ab":
        save(model_dir, tmp_path / name, KINDS["rslora"])
    edit(tmp_path / "a", base_model_name_or_path=str(tmp_path / "a"))
    assert "names itself as its base" in refusal(tmp_path / "a").what
    edit(tmp_path / "a", base_model_name_or_path=str(tmp_path / "b"))
    edit(tmp_path / "b", base_model_name_or_path=str(tmp_path / "a"))
    assert "names an adapter of its own as its base" in refusal(tmp_path / "a").what


def test_settings_of_a_newer_peft_are_told_and_those_of_trainers_are_not(model_dir, tmp_path, caplog):
    expected = save(model_dir, tmp_path / "a", KINDS["rslora"])
    edit(tmp_path / "a", unsloth_fixed=True, peft_version="9.9.9", newest_config={"on": 1}, off=None)
    with caplog.at_level(logging.WARNING):
        model = load_model(resolve_model(str(tmp_path / "a")), precision="fp32")
    torch.testing.assert_close(model(TOKENS).logits, expected, rtol=0, atol=1e-5)
    assert "ignores, newest_config={'on': 1}" in caplog.text
    assert "9.9.9" in caplog.text
    assert "unsloth" not in caplog.text


@pytest.mark.parametrize("for_training", [False, True])
def test_biases_that_no_layer_could_take_are_refused_before_the_work(model_dir, tmp_path, for_training):
    config = LoraConfig(r=2, target_modules=["q_proj"], lora_bias=True, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir), config).save_pretrained(tmp_path / "a")
    source = resolve_model(str(tmp_path / "a"))
    with pytest.raises(InputError, match=r"biases .lora_bias. for layers without one"):
        load_model(source, precision="fp32", for_training=for_training)
