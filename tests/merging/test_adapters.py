"""Merging adapters: the weights that come out, and that they do not depend on how the inputs lie on disk."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from data_registry.core.errors import ConfigError, InputError
from data_registry.testbed import MODEL_DIR
from pipelines.commands import merge
from pipelines.configs.merge import MergeConfig
from pipelines.merging import layers
from pipelines.merging.layer_records import LAYERS_FILE, read_records
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.tokens.tokenizer import load_tokenizer
from pipelines.weights import stored as checkpoints
from tests.reference import merge_plain as plain
from tests.reference.merge_inputs import (
    CONFIG,
    edit_json,
    factors,
    file_hashes,
    remove,
    save_adapter,
    save_model,
    weights,
)

ADAPTER = "adapter_model.safetensors"
TOKENS = torch.arange(12).reshape(2, 6)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
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


def config(made, out, **options) -> MergeConfig:
    given = {"finetuned": made / "task", "safe": made / "safe", "unaligned": made / "unaligned", "out": out}
    merged = {**given, **options}
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in merged.items()}
    return MergeConfig(**texts)


def merged_factors(out):
    return factors(out / "model")


def deltas(found):
    return {name: plain.delta(*parts) for name, parts in found.items()}


def expected_rhos(made, task="task", aligned="base", unaligned="unaligned"):
    aligned, unaligned = weights(made / aligned), weights(made / unaligned)
    return {
        name: plain.rho(aligned[f"{name}.weight"], unaligned[f"{name}.weight"], D)
        for name, D in deltas(factors(made / task)).items()
    }


def middle(rhos):
    """A threshold that half of the layers are below, away from any of them."""
    ordered = sorted(rhos.values())
    at = max(range(len(ordered) // 3, 2 * len(ordered) // 3), key=lambda index: ordered[index] - ordered[index - 1])
    return (ordered[at - 1] + ordered[at]) / 2


# --- What comes out ----------------------------------------------------------------------------------------------


def test_rho_and_weights_are_those_of_the_float64_computation(made, tmp_path):
    rhos = expected_rhos(made)
    threshold = middle(rhos)
    result = merge.run(config(made, tmp_path / "out", cos_threshold=[threshold]))
    D, S, M = (deltas(factors(path)) for path in (made / "task", made / "safe", tmp_path / "out" / "model"))
    records = {record.layer: record for record in result.merged[0].records}
    assert set(records) == set(M) == set(rhos)
    for name, rho in rhos.items():
        record = records[name]
        assert record.rho == pytest.approx(rho, rel=1e-5)
        assert record.action == ("merged" if rho < threshold else "kept")
        expected = plain.safemerge(D[name], S[name], rho, threshold, (0.8, 0.2))
        assert float((M[name] - expected).norm() / expected.norm()) < 1e-6
        assert record.norm_finetuned == pytest.approx(float(D[name].norm()), rel=1e-6)
        assert record.norm_merged == pytest.approx(float(expected.norm()), rel=1e-6)
        assert record.rank_merged == (8 if rho < threshold else 4)
        assert record.error < 1e-6
    assert result.manifest.summary["merged"] == sum(rho < threshold for rho in rhos.values())
    assert [record.role for record in result.manifest.inputs] == ["finetuned", "safe", "base", "aligned", "unaligned"]
    assert (tmp_path / "out" / "rho.png").read_bytes().startswith(b"\x89PNG")
    assert read_records(tmp_path / "out" / LAYERS_FILE) == result.merged[0].records


def test_safelora_projects_what_is_below(made, tmp_path):
    rhos = expected_rhos(made)
    threshold = middle(rhos)
    options = {"safe": None, "method": "safelora", "cos_threshold": [threshold]}
    merge.run(config(made, tmp_path / "out", **options))
    aligned, unaligned = weights(made / "base"), weights(made / "unaligned")
    D, M = deltas(factors(made / "task")), deltas(merged_factors(tmp_path / "out"))
    for name, rho in rhos.items():
        C = plain.projector(aligned[f"{name}.weight"], unaligned[f"{name}.weight"])
        expected = plain.safelora(D[name], C, rho, threshold)
        assert float((M[name] - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize(
    "options",
    [{"cos_threshold": [-1]}, {"cos_threshold": [1], "weights": [1, 0]}, {"method": "linear", "weights": [1, 0]},
     {"method": "safelora", "safe": None, "cos_threshold": [-1]}, {"cos_threshold": [1], "safe": "task"}],
)  # fmt: skip
def test_identities_return_the_fine_tuned_adapter_bit_for_bit(made, tmp_path, options):
    if options.get("method") == "linear":
        options = {**options, "unaligned": None}
    if options.get("safe") == "task":
        options = {**options, "safe": made / "task"}
    merge.run(config(made, tmp_path / "out", **options))
    found, expected = (load_file(path / ADAPTER) for path in (tmp_path / "out/model", made / "task"))
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    settings = json.loads((made / "task" / CONFIG).read_text())
    kept = json.loads((tmp_path / "out/model" / CONFIG).read_text())
    differing = {key for key in settings if settings[key] != kept[key]} - {"target_modules"}
    assert differing <= {"base_model_name_or_path"}
    assert set(settings["target_modules"]) == set(kept["target_modules"])


def test_logits_are_those_of_the_weighted_sum_of_the_changes(tmp_path, monkeypatch):
    """A model of a few million parameters; the merged adapter through PEFT, the merged model through transformers."""
    monkeypatch.setattr(checkpoints, "BLOCK_ELEMENTS", 30_000)
    shape = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "vocab_size": 600,
             "num_key_value_heads": 4, "initializer_range": 0.05}  # fmt: skip
    base = save_model(tmp_path / "base", 0, **shape)
    save_model(tmp_path / "unaligned", 1, **shape)
    save_adapter(tmp_path / "task", base, 2, rank=8)
    save_adapter(tmp_path / "safe", base, 3, rank=6)
    rhos = expected_rhos(tmp_path)
    threshold = middle(rhos)
    for output in ("adapter", "model"):
        merge.run(config(tmp_path, tmp_path / output, cos_threshold=[threshold], output=output))
    D, S = deltas(factors(tmp_path / "task")), deltas(factors(tmp_path / "safe"))
    plainly = AutoModelForCausalLM.from_pretrained(base).double().eval()
    for name, rho in rhos.items():
        plainly.get_submodule(name).weight.data += plain.safemerge(D[name], S[name], rho, threshold, (0.8, 0.2))
    expected = plainly(TOKENS).logits
    scale = float(expected.abs().max())
    assert sum(parameter.numel() for parameter in plainly.parameters()) > 2_000_000
    for output in ("adapter", "model"):
        source = resolve_model(str(tmp_path / output))
        assert source.is_adapter == (output == "adapter")
        found = load_model(source, precision="fp32")(TOKENS).logits
        assert float((found - expected).abs().max()) < 2e-6 * scale, output
    untouched = AutoModelForCausalLM.from_pretrained(base).eval()(TOKENS).logits
    assert float((untouched - expected).abs().max()) > 1e-2 * scale


def test_bf16_models_and_adapters(tmp_path):
    base = save_model(tmp_path / "base", 0, dtype=torch.bfloat16)
    save_model(tmp_path / "unaligned", 1, dtype=torch.float16)
    save_adapter(tmp_path / "task", base, 2, dtype=torch.bfloat16)
    save_adapter(tmp_path / "safe", base, 3, dtype=torch.bfloat16)
    result = merge.run(config(tmp_path, tmp_path / "out", cos_threshold=[1]))
    rhos = expected_rhos(tmp_path)
    D, S, M = (deltas(factors(path)) for path in (tmp_path / "task", tmp_path / "safe", tmp_path / "out" / "model"))
    for record in result.merged[0].records:
        name = record.layer
        assert record.rho == pytest.approx(rhos[name], rel=1e-5)
        expected = 0.8 * D[name] + 0.2 * S[name]
        error = float((M[name] - expected).norm() / expected.norm())
        assert error < 2**-8
        assert record.error == pytest.approx(error, rel=1e-3)  # the report tells the rounding
    out = merge.run(config(tmp_path, tmp_path / "whole", cos_threshold=[1], output="model"))
    stored, before = weights(tmp_path / "whole/model"), weights(base)
    for record in out.merged[0].records:
        name = f"{record.layer}.weight"
        assert stored[name].dtype == torch.bfloat16
        exact = before[name].double() + 0.8 * D[record.layer] + 0.2 * S[record.layer]
        assert torch.equal(stored[name], exact.float().to(torch.bfloat16))
        assert record.error > 1e-3  # of a small change in coarse weights


def test_truncation_to_a_rank(made, tmp_path):
    result = merge.run(config(made, tmp_path / "out", cos_threshold=[1], rank=5))
    D, S, M = (deltas(factors(path)) for path in (made / "task", made / "safe", tmp_path / "out" / "model"))
    for record in result.merged[0].records:
        exact = 0.8 * D[record.layer] + 0.2 * S[record.layer]
        best = plain.best_of_rank(exact, 5)
        assert float((M[record.layer] - best).norm() / exact.norm()) < 1e-5
        assert record.error == pytest.approx(float((best - exact).norm() / exact.norm()), rel=1e-3)
    assert json.loads((tmp_path / "out/model" / CONFIG).read_text())["r"] == 5


@pytest.mark.parametrize("method", ["linear", "ties", "dare-linear"])
def test_methods_without_criterion_merge_every_layer(made, tmp_path, method):
    options = {"method": method, "unaligned": None, "output": "model"}
    if method != "linear":
        options["density"] = 0.4
    out = merge.run(config(made, tmp_path / "out", **options))
    assert {record.action for record in out.merged[0].records} == {"merged"}
    D, S = deltas(factors(made / "task")), deltas(factors(made / "safe"))
    before, after = weights(made / "base"), weights(tmp_path / "out/model")
    for name in D:
        change = after[f"{name}.weight"].double() - before[f"{name}.weight"].double()
        if method == "linear":
            expected = 0.8 * D[name] + 0.2 * S[name]
            torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-6)
        elif method == "ties":
            expected = plain.ties([(0.8, D[name]), (0.2, S[name])], 0.4)
            torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-6)
        else:
            values = [0 * D[name], 2 * D[name], 0.5 * S[name], 2 * D[name] + 0.5 * S[name]]
            assert ((change - torch.stack(values)).abs().amin(0) < 1e-5).all()
    adapter = merge.run(config(made, tmp_path / "adapter", **{**options, "output": "adapter"}))
    for record in adapter.merged[0].records:
        assert record.rank_merged == 8
        if method == "linear":
            assert record.error < 1e-6
        else:
            assert 0.01 < record.error < 1  # a sparse matrix has no low rank, and the report says so


def test_safemerge_with_another_merge_type(made, tmp_path):
    rhos = expected_rhos(made)
    threshold = middle(rhos)
    options = {"cos_threshold": [threshold], "merge_type": "ties", "density": 0.3, "output": "model"}
    merge.run(config(made, tmp_path / "out", **options))
    D, S = deltas(factors(made / "task")), deltas(factors(made / "safe"))
    before, after = weights(made / "base"), weights(tmp_path / "out/model")
    for name, rho in rhos.items():
        expected = plain.ties([(0.8, D[name]), (0.2, S[name])], 0.3) if rho < threshold else D[name]
        change = after[f"{name}.weight"].double() - before[f"{name}.weight"].double()
        torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-6)


def test_published_arithmetic_for_comparison(made, tmp_path):
    rhos = expected_rhos(made)
    threshold = middle(rhos)
    options = {"cos_threshold": [threshold], "original_semantics": True}
    result = merge.run(config(made, tmp_path / "out", **options))
    task, safe, found = (factors(path) for path in (made / "task", made / "safe", tmp_path / "out/model"))
    for record in result.merged[0].records:
        name = record.layer
        assert record.rho == pytest.approx(rhos[name], abs=6e-6)
        assert record.rho == round(record.rho, 5)
        shares, both = ((0.8, 0.2) if record.rho < threshold else (1.0, 0.0)), (task, safe)
        A, B = (
            sum((share * of[name][2]) ** 0.5 * of[name][side].double() for share, of in zip(shares, both, strict=True))
            for side in (0, 1)
        )  # fmt: skip
        torch.testing.assert_close(found[name][0].double(), A, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found[name][1].double(), B, rtol=1e-6, atol=1e-7)
        assert found[name][2] == 1.0
        # It is no weighted sum of the changes, and the report says by how much.
        assert (record.error > 0.1) == (record.action == "merged")
    settings = json.loads((tmp_path / "out/model" / CONFIG).read_text())
    assert (settings["r"], settings["lora_alpha"]) == (4, 4)


# --- Adapters of every sort --------------------------------------------------------------------------------------


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


# --- The same whatever lies on disk ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"output": "model", "max_shard_gb": 2e-5},
                                     {"method": "dare-linear", "unaligned": None, "density": 0.5}])  # fmt: skip
def test_outputs_are_bit_identical_for_any_shards_and_workers(made, tmp_path, options):
    save_model(tmp_path / "base", 0, shard="20KB")
    save_model(tmp_path / "unaligned", 1, shard="7KB")
    assert len(list((tmp_path / "unaligned").glob("*.safetensors"))) > 5
    options = {"cos_threshold": [0.5], **options} if "method" not in options else options
    merge.run(config(made, tmp_path / "one", workers=1, **options))
    for workers in (1, 3):
        models = {"base": str(tmp_path / "base")}
        if "method" not in options:
            models["unaligned"] = str(tmp_path / "unaligned")
        out = tmp_path / f"other-{workers}"
        merge.run(config(made, out, workers=workers, **{**options, **models}))
        assert file_hashes(out / "model") == file_hashes(tmp_path / "one/model")
        assert [record.rho for record in read_records(out / LAYERS_FILE)] == [
            record.rho for record in read_records(tmp_path / "one" / LAYERS_FILE)
        ]
    if options.get("output") == "model":
        files = sorted(path.name for path in (tmp_path / "one/model").glob("*.safetensors"))
        assert len(files) > 3
        assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
        load_model(resolve_model(str(tmp_path / "one")), precision="fp32")


# --- Thresholds --------------------------------------------------------------------------------------------------


def test_a_sweep_makes_one_result_for_each_threshold_in_one_pass(made, tmp_path, monkeypatch):
    rhos = sorted(expected_rhos(made).values())
    thresholds = [0.0, rhos[5] + 1e-4, 1.0]
    reads = []
    plainly = layers.difference
    monkeypatch.setattr(layers, "difference", lambda *a, **k: reads.append((a[0].name, *a[2:])) or plainly(*a, **k))
    result = merge.run(config(made, tmp_path / "sweep", cos_threshold=thresholds))
    in_sweep, reads[:] = list(reads), []
    for value, merged in zip(thresholds, result.merged, strict=True):
        single = merge.run(config(made, tmp_path / f"single-{value}", cos_threshold=[value]))
        if value == 0.0:
            assert len(reads) > 21
            assert sorted(reads) == sorted(in_sweep)
        assert merged.path == tmp_path / "sweep" / f"cos-{value:g}"
        assert file_hashes(merged.path / "model") == file_hashes(single.path / "model")
        assert merged.records == single.merged[0].records
    assert [merged.manifest.summary.get("merged", 0) for merged in result.merged] == [0, 6, 21]
    assert not result.up_to_date
    assert merge.run(config(made, tmp_path / "sweep", cos_threshold=thresholds)).up_to_date
    # One directory of a sweep is what the single threshold would make there.
    assert merge.run(config(made, tmp_path / "sweep/cos-1", cos_threshold=[1.0])).up_to_date


@pytest.mark.parametrize("method", ["safemerge", "safelora"])
def test_the_threshold_is_chosen_for_a_share_of_the_layers(made, tmp_path, method):
    options = {"threshold": "auto", "merge_fraction": 1 / 3, "method": method}
    if method == "safelora":
        options["safe"] = None
    result = merge.run(config(made, tmp_path / "out", **options))
    rhos = sorted(expected_rhos(made).values())
    assert rhos[6] < result.manifest.summary["threshold"] < rhos[7]
    assert sum(record.action in ("merged", "projected") for record in result.merged[0].records) == 7
    fixed = dict(options, cos_threshold=[result.manifest.summary["threshold"]])
    fixed.pop("threshold"), fixed.pop("merge_fraction")
    merge.run(config(made, tmp_path / "fixed", **fixed))
    assert file_hashes(tmp_path / "fixed/model") == file_hashes(tmp_path / "out/model")


def test_a_report_and_a_dry_run_write_no_weights(made, tmp_path):
    options = {"cos_threshold": [0.3, 0.5], "output": "report"}
    result = merge.run(config(made, tmp_path / "out", **options))
    assert {path.name for path in (tmp_path / "out/cos-0.5").iterdir()} == {
        "manifest.json", "layers.parquet", "rho.png", "config.yaml",
    }  # fmt: skip
    assert result.merged[0].manifest.kind == "merge-report"
    made_really = merge.run(config(made, tmp_path / "really", cos_threshold=[0.5]))
    fields = ("layer", "rho", "action", "threshold", "norm_finetuned", "norm_safe", "norm_alignment")
    assert [[getattr(r, f) for f in fields] for r in result.merged[1].records] == [
        [getattr(r, f) for f in fields] for r in made_really.merged[0].records
    ]
    before = set(tmp_path.iterdir())
    rows = merge.plan(config(made, tmp_path / "dry", cos_threshold=[0.3, 0.5]))
    assert set(tmp_path.iterdir()) == before
    for record in made_really.merged[0].records:
        assert (record.layer, f"rho {record.rho:.5f}") in [(name, value.split("  ")[0]) for name, value in rows]


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
