"""Weights that lie on disk in other ways: Conv1D, nested configurations, older names, heads tied in one model alone."""

import math

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    SiglipVisionConfig,
)

from data_registry.core.errors import InputError
from pipelines.commands import merge
from pipelines.configs.merge import MergeConfig
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from tests.merging.adapters import TOKENS, config, deltas
from tests.reference import merge_plain as plain
from tests.reference.merge_inputs import edit_json, factors, rewrite, save_adapter, save_model, weights


def gpt2(seed):
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=24))


def gemma3(seed):
    torch.manual_seed(seed)
    text = Gemma3TextConfig(vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2, head_dim=8,
                            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=40)  # fmt: skip
    vision = SiglipVisionConfig(hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
                                image_size=8, patch_size=4)  # fmt: skip
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=59)
    )


NAMES = ("base", "unaligned", "task", "safe")


@pytest.fixture
def full_gpt2(tmp_path):
    for seed, name in enumerate(NAMES):
        save_model(tmp_path / name, seed, build=gpt2)
    return tmp_path


def older_names(directory):
    """The names that the first checkpoints of GPT-2 have on the hub."""
    rewrite(
        directory / "model.safetensors",
        lambda tensors: {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()},
    )


def full(root, out, **options) -> MergeConfig:
    given = {"finetuned": root / "task", "aligned": root / "base", "unaligned": root / "unaligned", **options}
    texts = {name: str(value) if name in (*NAMES, "finetuned", "aligned") else value for name, value in given.items()}
    return MergeConfig(**texts, out=out)


IN_OUT = ("c_attn.weight", "c_proj.weight", "c_fc.weight", "wpe.weight")


@pytest.mark.parametrize("layout", ["as saved now", "base of older names"])
def test_conv1d_is_projected_on_its_output_side(full_gpt2, tmp_path, layout):
    base, unaligned, task = (weights(full_gpt2 / name) for name in ("base", "unaligned", "task"))
    if layout != "as saved now":
        older_names(full_gpt2 / "base")
    result = merge.run(full(full_gpt2, tmp_path / "out", method="safelora", cos_threshold=[1.0]))
    found = weights(tmp_path / "out/model")
    records = {record.layer: record for record in result.merged[0].records}
    checked = 0
    for name in (name for name in task if name.endswith(IN_OUT)):
        out_in = [tensors[name].double().T for tensors in (base, unaligned, task)]
        D = out_in[2] - out_in[0]
        assert records[name].rho == pytest.approx(plain.rho(out_in[0], out_in[1], D), rel=1e-4)
        expected = out_in[0] + plain.projector(out_in[0], out_in[1]).double() @ D
        torch.testing.assert_close(found[name].double(), expected.T, rtol=1e-4, atol=1e-5)
        checked += 1
    assert checked == 2 * 4 + 1
    assert records["transformer.wte.weight"].action == "copied"
    load_model(resolve_model(str(tmp_path / "out")), precision="fp32")


@pytest.mark.parametrize("fan_in_fan_out", [True, False])
@pytest.mark.parametrize("older", [False, True])
def test_adapters_on_conv1d_are_measured_and_merged_on_the_output_side(tmp_path, fan_in_fan_out, older):
    for seed, name in enumerate(("base", "unaligned")):
        save_model(tmp_path / name, seed, build=gpt2)
    options = {"target_modules": ["c_proj", "c_attn"], "fan_in_fan_out": True}  # attn.c_proj is square
    for seed, name in ((2, "task"), (3, "safe")):
        save_adapter(tmp_path / name, tmp_path / "base", seed, **options)
        edit_json(tmp_path / name / "adapter_config.json", fan_in_fan_out=fan_in_fan_out)
    base, unaligned = weights(tmp_path / "base"), weights(tmp_path / "unaligned")
    if older:
        older_names(tmp_path / "base")
    result = merge.run(config(tmp_path, tmp_path / "out", cos_threshold=[1.0], output="model", weights=[0.5, 0.5]))
    D, S = deltas(factors(tmp_path / "task")), deltas(factors(tmp_path / "safe"))
    found = weights(tmp_path / "out/model")
    found = {name if name.startswith("transformer.") else f"transformer.{name}": part for name, part in found.items()}
    for record in result.merged[0].records:
        name = f"{record.layer}.weight"
        rho = plain.rho(base[name].T, unaligned[name].T, D[record.layer])
        assert record.rho == pytest.approx(rho, rel=1e-4)
        expected = base[name].double() + (0.5 * D[record.layer] + 0.5 * S[record.layer]).T
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)
    assert len(result.merged[0].records) == 2 * 3


def test_embeddings_of_a_nested_configuration_are_no_layers(tmp_path):
    for seed, name in enumerate(NAMES[:3]):
        save_model(tmp_path / name, seed, build=gemma3)
    result = merge.run(full(tmp_path, tmp_path / "out", method="safelora", cos_threshold=[1.0]))
    actions = {record.layer: record.action for record in result.merged[0].records}
    embeddings = [name for name in actions if "embed_tokens" in name]
    assert embeddings
    assert {actions[name] for name in embeddings} == {"copied"}
    assert (
        sum(action == "projected" and ".mlp." in name and "language" in name for name, action in actions.items()) == 6
    )
    load_model(resolve_model(str(tmp_path / "out")), precision="fp32")


def test_a_head_that_is_tied_in_one_model_alone(tmp_path):
    """Where the fine-tuned model has a head of its own, a tied model's head is its embedding."""
    save_model(tmp_path / "task", 2, tie_word_embeddings=False)
    save_model(tmp_path / "safe", 3, tie_word_embeddings=True)
    given = {"method": "linear", "weights": [0.25, 0.75]}
    merge.run(MergeConfig(finetuned=str(tmp_path / "task"), safe=str(tmp_path / "safe"), **given, out=tmp_path / "out"))
    task, safe, found = (weights(tmp_path / name) for name in ("task", "safe", "out/model"))
    expected = 0.25 * task["lm_head.weight"] + 0.75 * safe["model.embed_tokens.weight"]
    torch.testing.assert_close(found["lm_head.weight"], expected, rtol=1e-6, atol=1e-7)
    head = LlamaForCausalLM.from_pretrained(tmp_path / "out/model").lm_head.weight
    torch.testing.assert_close(head, expected, rtol=1e-6, atol=1e-7)
    # The other way round the head of the safe model would be lost.
    turned = MergeConfig(finetuned=str(tmp_path / "safe"), safe=str(tmp_path / "task"), **given, out=tmp_path / "no")
    with pytest.raises(InputError, match="not in all models") as caught:
        merge.run(turned)
    assert "lm_head.weight (apart in" in caught.value.where


# --- The published arithmetic -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_rslora": True, "rank_pattern": {"v_proj": 2}}])
def test_added_factors_are_those_of_peft(tmp_path, options):
    base = save_model(tmp_path / "base", 0)
    for seed, name in ((2, "task"), (3, "safe")):
        save_adapter(tmp_path / name, base, seed, target_modules=["q_proj", "v_proj"], **options)
    save_model(tmp_path / "unaligned", 1)
    given = {"cos_threshold": [1.0], "weights": [0.7, 0.3], "original_semantics": True}  # all layers are merged
    merge.run(config(tmp_path, tmp_path / "out", **given))
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "task", "task")
    adapted.load_adapter(tmp_path / "safe", "safe")
    adapted.add_weighted_adapter(["task", "safe"], [0.7, 0.3], "sum", combination_type="linear")
    adapted.set_adapter("sum")
    ours = load_model(resolve_model(str(tmp_path / "out")), precision="fp32")
    torch.testing.assert_close(ours(TOKENS).logits, adapted.eval()(TOKENS).logits, rtol=1e-5, atol=1e-5)
    scalings = {name: parts[2] for name, parts in factors(tmp_path / "out/model").items()}
    assert all(math.isclose(value, 2.0 if options else 1.0) for value in scalings.values())


def test_added_factors_of_unlike_ranks_are_refused_before_anything_is_read(tmp_path):
    base = save_model(tmp_path / "base", 0)
    save_adapter(tmp_path / "task", base, 2)
    save_adapter(tmp_path / "safe", base, 3, rank=2)
    save_model(tmp_path / "unaligned", 1)
    given = config(tmp_path, tmp_path / "out", original_semantics=True)
    for look in (merge.plan, merge.run):
        with pytest.raises(InputError, match="have different ranks: 4 and 2"):
            look(given)


# --- Adapters with more than factors ------------------------------------------------------------------------------


def test_what_merge_makes_of_an_adapted_embedding_loads(tmp_path):
    base = save_model(tmp_path / "base", 0)
    save_adapter(tmp_path / "task", base, 2, target_modules=["q_proj", "embed_tokens"])
    save_adapter(tmp_path / "safe", base, 3, target_modules=["q_proj", "v_proj"])
    given = {"method": "linear", "unaligned": None, "weights": [0.5, 0.5], "allow_unpaired": True}
    merge.run(config(tmp_path, tmp_path / "out", **given))
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out/model")
    ours = load_model(resolve_model(str(tmp_path / "out")), precision="fp32")
    torch.testing.assert_close(ours(TOKENS).logits, adapted.eval()(TOKENS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [0, math.nan, math.inf])
def test_an_alpha_that_says_nothing_is_refused(tmp_path, alpha):
    base = save_model(tmp_path / "base", 0)
    for seed, name in ((2, "task"), (3, "safe")):
        save_adapter(tmp_path / name, base, seed, target_modules=["q_proj"])
    edit_json(tmp_path / "task/adapter_config.json", lora_alpha=alpha)
    with pytest.raises(InputError, match=r"change nothing|no lora_alpha"):
        merge.run(config(tmp_path, tmp_path / "out", method="linear", unaligned=None))
