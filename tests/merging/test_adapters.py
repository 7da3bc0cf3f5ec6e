"""Merging adapters: the weights that come out, and that they do not depend on how the inputs lie on disk."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pipelines.commands import merge
from pipelines.merging.layer_records import LAYERS_FILE, read_records
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.weights import stored as checkpoints
from tests.merging.adapters import TOKENS, config, deltas, expected_rhos, merged_factors, middle
from tests.reference import merge_plain as plain
from tests.reference.merge_inputs import CONFIG, factors, file_hashes, save_adapter, save_model, weights

ADAPTER = "adapter_model.safetensors"
pytestmark = pytest.mark.usefixtures("small_blocks")


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
