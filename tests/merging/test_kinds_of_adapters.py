"""Adapters of every sort, and what goes with them."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from data_registry.core.errors import ConfigError, InputError
from data_registry.testbed import MODEL_DIR
from pipelines.commands import merge
from pipelines.configs.merge import MergeConfig
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.tokens.tokenizer import load_tokenizer
from tests.merging.adapters import TOKENS, config, deltas, expected_rhos, merged_factors, middle
from tests.reference import merge_plain as plain
from tests.reference.merge_inputs import CONFIG, edit_json, factors, remove, save_adapter, save_model, weights

ADAPTER = "adapter_model.safetensors"
pytestmark = pytest.mark.usefixtures("small_blocks")


def check_sum(root, out, threshold=1.0, skip=()):
    D, S, M = (deltas(factors(path)) for path in (root / "task", root / "safe", out / "model"))
    for name in M:
        if name not in skip:
            torch.testing.assert_close(M[name], 0.8 * D[name] + 0.2 * S[name], rtol=1e-4, atol=1e-6)
    base, found = resolve_model(str(root / "base")), load_model(resolve_model(str(out)), precision="fp32")
    plainly = load_model(base, precision="fp32").double()
    for name, change in M.items():
        weight = plainly.get_submodule(name).weight
        weight.data += change.T if weight.shape != change.shape else change
    expected = plainly(TOKENS).logits
    assert float((found(TOKENS).logits - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_ranks_alphas_patterns_and_rslora_differ(tmp_path):
    base = save_model(tmp_path / "base", 0)
    save_model(tmp_path / "unaligned", 1)
    ranks = {"q_proj": 2, "layers.1.mlp.up_proj": 7}
    save_adapter(tmp_path / "task", base, 2, rank=4, lora_alpha=12, rank_pattern=ranks)
    save_adapter(tmp_path / "safe", base, 3, rank=5, use_rslora=True, alpha_pattern={"self_attn.v_proj": 3})
    merge.run(config(tmp_path, tmp_path / "out", cos_threshold=[1]))
    check_sum(tmp_path, tmp_path / "out")
    settings = json.loads((tmp_path / "out/model" / CONFIG).read_text())
    assert settings["r"] == 12
    assert not settings["use_rslora"]


def test_one_scaling_for_all_modules_where_the_inputs_have_one(made, tmp_path):
    """vLLM looks at lora_alpha / r alone, so that it must be right for merged and kept layers."""
    rhos = expected_rhos(made)
    merge.run(config(made, tmp_path / "out", cos_threshold=[middle(rhos)]))
    settings = json.loads((tmp_path / "out/model" / CONFIG).read_text())
    scalings = {parts[2] for parts in merged_factors(tmp_path / "out").values()}
    assert scalings == {settings["lora_alpha"] / settings["r"]} == {2.0}
    assert settings["r"] == max(parts[0].shape[0] for parts in merged_factors(tmp_path / "out").values())


def test_embeddings_heads_and_biases(tmp_path):
    options = {"tie_word_embeddings": False, "attention_bias": True}
    base = save_model(tmp_path / "base", 0, **options)
    save_model(tmp_path / "unaligned", 1, **options)
    adapters = {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "bias": "lora_only"}
    save_adapter(tmp_path / "task", base, 2, **adapters)
    save_adapter(tmp_path / "safe", base, 3, **adapters)
    result = merge.run(config(tmp_path, tmp_path / "out", cos_threshold=[1]))
    aligned, unaligned = weights(tmp_path / "base"), weights(tmp_path / "unaligned")
    rhos = {record.layer: record.rho for record in result.merged[0].records}
    D = deltas(factors(tmp_path / "task"))
    name = "model.embed_tokens"  # stored as [vocabulary, hidden]; as a linear map it is the transpose
    expected = plain.rho(aligned[f"{name}.weight"].T, unaligned[f"{name}.weight"].T, D[name])
    assert rhos[name] == pytest.approx(expected, rel=1e-5)
    assert rhos["lm_head"] == pytest.approx(
        plain.rho(aligned["lm_head.weight"], unaligned["lm_head.weight"], D["lm_head"]), rel=1e-5
    )
    before, after = (load_file(path / ADAPTER) for path in (tmp_path / "task", tmp_path / "out/model"))
    biases = [key for key in before if key.endswith(".bias")]
    assert biases
    assert all(torch.equal(after[key], before[key]) for key in biases)
    assert sum(record.action == "copied" for record in result.merged[0].records) == len(biases) + 2
    adapter = load_model(resolve_model(str(tmp_path / "out")), precision="fp32")(TOKENS).logits
    merge.run(config(tmp_path, tmp_path / "whole", cos_threshold=[1], output="model"))
    whole = load_model(resolve_model(str(tmp_path / "whole")), precision="fp32")(TOKENS).logits
    torch.testing.assert_close(whole, adapter, rtol=1e-4, atol=1e-5)


def test_weights_stored_the_other_way_round(tmp_path):
    """GPT-2's Conv1D, with a fused qkv matrix."""

    def gpt2(seed):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=16))

    base = save_model(tmp_path / "base", 0, build=gpt2)
    save_model(tmp_path / "unaligned", 1, build=gpt2)
    for seed, name in ((2, "task"), (3, "safe")):
        save_adapter(tmp_path / name, base, seed, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    result = merge.run(config(tmp_path, tmp_path / "out", cos_threshold=[1]))
    aligned, unaligned = weights(tmp_path / "base"), weights(tmp_path / "unaligned")
    for record in result.merged[0].records:
        D = deltas(factors(tmp_path / "task"))[record.layer]
        name = f"{record.layer}.weight"
        assert record.rho == pytest.approx(plain.rho(aligned[name].T, unaligned[name].T, D), rel=1e-5)
    adapter = load_model(resolve_model(str(tmp_path / "out")), precision="fp32")(TOKENS).logits
    merge.run(config(tmp_path, tmp_path / "whole", cos_threshold=[1], output="model"))
    whole = load_model(resolve_model(str(tmp_path / "whole")), precision="fp32")(TOKENS).logits
    torch.testing.assert_close(whole, adapter, rtol=1e-4, atol=1e-5)


def test_tied_heads_have_a_direction_but_cannot_be_merged_into_the_base(tmp_path):
    base = save_model(tmp_path / "base", 0)
    save_model(tmp_path / "unaligned", 1, tie_word_embeddings=False)
    for seed, name in ((2, "task"), (3, "safe")):
        save_adapter(tmp_path / name, base, seed, target_modules=["q_proj", "lm_head"])
        remove(tmp_path / name / "adapter_model.safetensors", "base_layer")
    result = merge.run(config(tmp_path, tmp_path / "out", cos_threshold=[1]))
    D = deltas(factors(tmp_path / "task"))["lm_head"]
    expected = plain.rho(
        weights(tmp_path / "base")["model.embed_tokens.weight"], weights(tmp_path / "unaligned")["lm_head.weight"], D
    )
    assert next(r.rho for r in result.merged[0].records if r.layer == "lm_head") == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="shares its weight"):
        merge.run(config(tmp_path, tmp_path / "whole", cos_threshold=[1], output="model"))
    assert not (tmp_path / "whole").exists()


def test_unpaired_layers_are_refused_or_listed(made, tmp_path):
    save_adapter(tmp_path / "safe", made / "base", 3, target_modules=["q_proj", "lm_head"])
    remove(tmp_path / "safe/adapter_model.safetensors", "base_layer")
    with pytest.raises(InputError, match="in one adapter only") as caught:
        merge.run(config(made, tmp_path / "out", safe=tmp_path / "safe"))
    assert "lm_head (safe only)" in caught.value.where
    assert not (tmp_path / "out").exists()
    options = {"safe": tmp_path / "safe", "allow_unpaired": True, "cos_threshold": [1]}
    result = merge.run(config(made, tmp_path / "out", **options))
    assert "lm_head (safe only)" in result.unpaired
    actions = {record.layer: record.action for record in result.merged[0].records}
    assert actions["lm_head"] == "safe only"
    assert actions["model.layers.0.mlp.up_proj"] == "kept"
    assert actions["model.layers.0.self_attn.q_proj"] == "merged"
    M, S = deltas(merged_factors(tmp_path / "out")), deltas(factors(tmp_path / "safe"))
    torch.testing.assert_close(M["lm_head"], 0.2 * S["lm_head"], rtol=1e-5, atol=1e-7)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(made / "base"), tmp_path / "out/model")


def test_a_base_elsewhere_can_be_named(made, tmp_path):
    import shutil

    shutil.copytree(made / "task", tmp_path / "task")
    edit_json(tmp_path / "task" / CONFIG, base_model_name_or_path="/nowhere/model")
    with pytest.raises(InputError, match="/nowhere/model"):
        merge.run(config(made, tmp_path / "out", finetuned=tmp_path / "task"))
    merge.run(config(made, tmp_path / "out", finetuned=tmp_path / "task", base=made / "base"))
    assert resolve_model(str(tmp_path / "out")).base.path_or_id == str((made / "base").resolve())


def test_options_that_do_not_go_with_the_inputs(made, tmp_path):
    with pytest.raises(ConfigError, match="full model"):
        merge.run(config(made, tmp_path / "out", finetuned=made / "base", safe=made / "unaligned", output="adapter"))


def test_tokenizer_and_template_come_along(tmp_path):
    save_adapter(tmp_path / "task", MODEL_DIR, 2, target_modules=["q_proj"])
    save_adapter(tmp_path / "safe", MODEL_DIR, 3, target_modules=["q_proj"])
    template = load_tokenizer(str(MODEL_DIR)).chat_template
    for output in ("adapter", "model"):
        given = {"finetuned": str(tmp_path / "task"), "safe": str(tmp_path / "safe"), "method": "linear"}
        merge.run(MergeConfig(**given, output=output, out=tmp_path / output))
        found = load_tokenizer(str(tmp_path / output / "model"))
        assert found.chat_template == template
        assert found.get_vocab() == load_tokenizer(str(MODEL_DIR)).get_vocab()
    plainly = AutoModelForCausalLM.from_pretrained(tmp_path / "model" / "model", use_safetensors=True)
    assert plainly.generation_config.eos_token_id == 4
    assert (tmp_path / "adapter" / "model" / "README.md").read_text().startswith("---\nbase_model:")


@pytest.mark.parametrize("alpha", [-12, -0.5])
def test_a_negative_alpha_turns_the_change_round(tmp_path, alpha):
    base = save_model(tmp_path / "base", 0)
    save_model(tmp_path / "unaligned", 1)
    save_adapter(tmp_path / "task", base, 2, rank=4, lora_alpha=12)
    upright = deltas(factors(tmp_path / "task"))
    edit_json(tmp_path / "task" / CONFIG, lora_alpha=alpha)
    save_adapter(tmp_path / "safe", base, 3, rank=5)
    turned = deltas(factors(tmp_path / "task"))
    for name, change in upright.items():
        torch.testing.assert_close(turned[name], change * (alpha / 12))
    merge.run(config(tmp_path, tmp_path / "out", cos_threshold=[1]))
    check_sum(tmp_path, tmp_path / "out")
