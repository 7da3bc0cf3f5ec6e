"""Adapters as models: what they resolve to, and bases that they do not fit."""

import json
import shutil

import pytest
import torch
from transformers import LlamaForCausalLM, MambaConfig, MambaForCausalLM

from data_registry.core.errors import ArtifactError, ConfigError, InputError
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig
from pipelines.models.loading import load_model
from pipelines.models.lora import add_adapters, check_targets
from pipelines.models.reference import resolve_model
from tests.models.small_models import TOKENS, adapt, refusal, tiny


def test_an_adapter_is_merged_into_its_base(model_dir, tmp_path):
    expected = adapt(model_dir, tmp_path / "adapter")
    source = resolve_model(str(tmp_path / "adapter"))
    assert source.is_adapter
    assert source.base is not None
    assert source.base.path_or_id == str(model_dir)
    model = load_model(source, precision="fp32")
    assert isinstance(model, LlamaForCausalLM)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in tiny().named_parameters()]
    torch.testing.assert_close(model(TOKENS).logits, expected, rtol=0, atol=1e-5)
    assert (expected - tiny().eval()(TOKENS).logits).abs().max() > 1e-3


def test_an_adapter_stays_one_for_training(model_dir, tmp_path):
    adapt(model_dir, tmp_path / "adapter")
    model = load_model(resolve_model(str(tmp_path / "adapter")), precision="bf16", for_training=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_an_adapter_run_finds_its_base_by_the_manifest_when_paths_were_relative(model_dir, tmp_path):
    adapt(model_dir, tmp_path / "adapter")
    change = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    change["base_model_name_or_path"] = "somewhere/else/model"
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(change))
    record = resolve_model(str(model_dir)).input_record()
    with write_artifact(tmp_path / "run", "run", CommandConfig(), [record]) as writer:
        shutil.copytree(tmp_path / "adapter", writer.path / "model")
    base = resolve_model(str(tmp_path / "run")).base
    assert base is not None
    assert base.path_or_id == str(model_dir)


def test_an_adapter_run_refuses_a_base_that_has_changed(model_dir, tmp_path):
    adapt(model_dir, tmp_path / "adapter")
    record = resolve_model(str(model_dir)).input_record()
    with write_artifact(tmp_path / "run", "run", CommandConfig(), [record]) as writer:
        shutil.copytree(tmp_path / "adapter", writer.path / "model")
    assert resolve_model(str(tmp_path / "run")).is_adapter
    tiny(seed=7).save_pretrained(model_dir)
    with pytest.raises(ArtifactError, match="is not the one that it was trained on"):
        resolve_model(str(tmp_path / "run"))


def test_an_adapter_whose_base_is_gone_says_so(model_dir, tmp_path):
    adapt(model_dir, tmp_path / "adapter")
    shutil.rmtree(model_dir)
    with pytest.raises(InputError, match="base model of the adapter") as caught:
        resolve_model(str(tmp_path / "adapter"))
    assert "base_model_name_or_path" in str(caught.value)


def test_an_adapter_of_another_architecture_is_refused(model_dir, tmp_path):
    adapt(model_dir, tmp_path / "adapter")
    tiny(hidden_size=32).save_pretrained(model_dir)
    assert "does not fit its base model" in str(refusal(tmp_path / "adapter"))


def test_an_adapter_of_a_shallower_model_is_refused(model_dir, tmp_path):
    adapt(model_dir, tmp_path / "adapter")
    tiny(num_hidden_layers=1).save_pretrained(model_dir)
    assert "weights are on one side only" in str(refusal(tmp_path / "adapter"))


@pytest.mark.parametrize("targets", ["all-linear", "in_proj,out_proj"])
def test_layers_of_a_state_space_model_that_cannot_be_adapted(targets):
    model = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4))
    settings = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": targets}
    with pytest.raises(ConfigError, match="out_proj of a model of type mamba cannot be adapted") as caught:
        check_targets(model, settings)
    fix = str(caught.value.fix)
    assert fix == "--lora-targets dt_proj,in_proj,x_proj"
    adapted = add_adapters(model, {**settings, "targets": fix.removeprefix("--lora-targets ")}, seed=0)
    assert any("lora_A" in name for name, _ in adapted.named_parameters())
