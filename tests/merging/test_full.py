"""Merging full models on weight differences, and the soup of two models."""

import shutil

import pytest
import torch
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from data_registry.core.errors import ConfigError, InputError
from pipelines.commands import merge
from pipelines.configs.merge import MergeConfig
from pipelines.merging import criterion
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from tests.reference import merge_plain as plain
from tests.reference.merge_inputs import file_hashes, rewrite, save_model, weights

TOKENS = torch.arange(12).reshape(2, 6)


@pytest.fixture(autouse=True)
def small_columns(small_blocks, monkeypatch):
    monkeypatch.setattr(criterion, "COLUMNS", 10)


def changed(target, base, seed, size=0.02, **options):
    """A full model near another."""
    model = LlamaForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += size * torch.randn_like(parameter)
    model.to(options.pop("dtype", torch.float32)).save_pretrained(target, **options)
    return target


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("full")
    base = save_model(root / "aligned", 0)
    save_model(root / "unaligned", 1)
    changed(root / "task", base, 2)
    changed(root / "safe", base, 3)
    return root


def config(made, out, **options) -> MergeConfig:
    names = {"finetuned": "task", "safe": "safe", "aligned": "aligned", "unaligned": "unaligned"}
    given = {key: str(made / name) for key, name in names.items()}
    return MergeConfig(**{**given, "out": out, **options})


def rhos_of(made):
    aligned, unaligned, task = (weights(made / name) for name in ("aligned", "unaligned", "task"))
    return {
        name: plain.rho(aligned[name], unaligned[name], task[name].double() - aligned[name].double())
        for name, tensor in task.items()
        if tensor.dim() == 2 and 60 not in tensor.shape
    }


def middle(rhos):
    ordered = sorted(rhos.values())
    at = len(ordered) // 2
    return (ordered[at - 1] + ordered[at]) / 2


@pytest.mark.parametrize("method", ["safemerge", "safelora"])
def test_the_criterion_works_on_weight_differences(made, tmp_path, method):
    rhos = rhos_of(made)
    threshold = middle(rhos)
    options = {"method": method, "cos_threshold": [threshold], **({"safe": None} if method == "safelora" else {})}
    result = merge.run(config(made, tmp_path / "out", **options))
    task, safe, base, unaligned = (weights(made / name) for name in ("task", "safe", "aligned", "unaligned"))
    found = weights(tmp_path / "out/model")
    records = {record.layer: record for record in result.merged[0].records}
    assert set(found) == set(task) == set(records)
    for name, tensor in task.items():
        if name not in rhos:
            assert records[name].action == "copied"  # norms and embeddings
            assert torch.equal(found[name], tensor)
            continue
        assert records[name].rho == pytest.approx(rhos[name], rel=1e-4)
        D, S = tensor.double() - base[name].double(), safe[name].double() - base[name].double()
        if rhos[name] >= threshold:
            assert records[name].action == "kept"
            assert torch.equal(found[name], tensor)
        elif method == "safemerge":
            torch.testing.assert_close(found[name].double(), base[name] + 0.8 * D + 0.2 * S, rtol=1e-5, atol=1e-6)
        else:
            C = plain.projector(base[name], unaligned[name])
            torch.testing.assert_close(found[name].double(), base[name] + C @ D, rtol=1e-4, atol=1e-5)
    loaded = load_model(resolve_model(str(tmp_path / "out")), precision="fp32")
    assert torch.equal(loaded.model.norm.weight, task["model.norm.weight"])


def test_soup_is_the_interpolation_of_all_weights(made, tmp_path):
    options = {"method": "linear", "weights": [0.3, 0.7], "aligned": None, "unaligned": None}
    result = merge.run(config(made, tmp_path / "out", **options))
    task, safe, found = (weights(path) for path in (made / "task", made / "safe", tmp_path / "out/model"))
    for name in task:
        torch.testing.assert_close(found[name], 0.3 * task[name] + 0.7 * safe[name], rtol=1e-6, atol=1e-7)
    assert result.manifest.summary["merged"] == len(task)


def test_a_soup_off_one_needs_what_training_started_from(made, tmp_path):
    options = {"method": "linear", "weights": [1.0, 0.5], "aligned": None, "unaligned": None}
    with pytest.raises(ConfigError, match="--base"):
        merge.run(config(made, tmp_path / "out", **options))
    merge.run(config(made, tmp_path / "out", base=str(made / "aligned"), **options))
    task, safe, base = (weights(made / name) for name in ("task", "safe", "aligned"))
    found = weights(tmp_path / "out/model")
    for name in task:
        expected = base[name] + (task[name] - base[name]) + 0.5 * (safe[name] - base[name])
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"cos_threshold": [-1]}, {"cos_threshold": [1], "weights": [1, 0]}, {"cos_threshold": [1], "safe": "task"},
     {"method": "linear", "weights": [1, 0]}, {"method": "linear", "safe": "task", "weights": [0.3, 0.7]}],
)  # fmt: skip
def test_identities_return_the_fine_tuned_model_bit_for_bit(made, tmp_path, options):
    if options.get("method") == "linear":
        options = {**options, "aligned": None, "unaligned": None}
    if "safe" in options:
        options = {**options, "safe": str(made / options["safe"])}
    merge.run(config(made, tmp_path / "out", **options))
    found, expected = weights(tmp_path / "out/model"), weights(made / "task")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("method", ["ties", "dare-linear"])
def test_elementwise_methods_merge_every_tensor(made, tmp_path, method):
    options = {"method": method, "density": 0.4, "aligned": None, "unaligned": None, "base": str(made / "aligned")}
    merge.run(config(made, tmp_path / "out", **options))
    merge.run(config(made, tmp_path / "again", workers=3, **options))
    assert file_hashes(tmp_path / "out/model") == file_hashes(tmp_path / "again/model")
    task, safe, base = (weights(made / name) for name in ("task", "safe", "aligned"))
    found = weights(tmp_path / "out/model")
    for name in task:
        D, S = task[name] - base[name], safe[name] - base[name]
        change = found[name] - base[name]
        if method == "ties":
            expected = plain.ties([(0.8, D), (0.2, S)], 0.4)
            torch.testing.assert_close(change.double(), expected, rtol=1e-3, atol=1e-6)
        else:
            values = torch.stack([0 * D, 2 * D, 0.5 * S, 2 * D + 0.5 * S])
            assert ((change - values).abs().amin(0) < 1e-5).all()


@pytest.mark.parametrize("method", ["linear", "ties", "dare-linear"])
def test_tensors_of_any_number_of_dimensions_are_merged(made, tmp_path, method):
    """The kernels of images (4) and videos (5) that models of several modalities bring, and a single number."""
    shapes = [(), (5,), (4, 3), (2, 4, 3), (16, 3, 4, 4), (2, 3, 2, 4, 4)]
    for seed, name in enumerate(("aligned", "task", "safe")):
        shutil.copytree(made / name, tmp_path / name)
        torch.manual_seed(seed)
        added = {f"vision.{len(shape)}.weight": torch.randn(shape) for shape in shapes}
        rewrite(tmp_path / name / "model.safetensors", lambda tensors, added=added: {**tensors, **added})
    needs = {"base": str(tmp_path / "aligned")} if method != "linear" else {}
    given = {"method": method, "aligned": None, "unaligned": None, "weights": [0.5, 0.5], **needs}
    merge.run(config(tmp_path, tmp_path / "out", density=0.4 if needs else None, **given))
    task, safe, base, found = (weights(tmp_path / name) for name in ("task", "safe", "aligned", "out/model"))
    for name in (f"vision.{len(shape)}.weight" for shape in shapes):
        D, S = task[name] - base[name], safe[name] - base[name]
        if method == "linear":
            torch.testing.assert_close(found[name], (task[name] + safe[name]) / 2)
        elif method == "dare-linear":
            values = torch.stack([0 * D, 1.25 * D, 1.25 * S, 1.25 * (D + S)])
            assert ((found[name] - base[name] - values).abs().amin(0) < 1e-5).all()
        elif D.dim() != 3:  # a stack is trimmed matrix by matrix
            expected = plain.ties([(0.5, D.reshape(1, -1)), (0.5, S.reshape(1, -1))], 0.4).reshape(D.shape)
            torch.testing.assert_close((found[name] - base[name]).double(), expected, rtol=1e-3, atol=1e-5)


def test_bit_identical_for_any_shards_and_workers(made, tmp_path):
    for name in ("aligned", "unaligned", "task", "safe"):
        LlamaForCausalLM.from_pretrained(made / name).save_pretrained(tmp_path / name, max_shard_size="9KB")
    threshold = middle(rhos_of(made))
    options = {"cos_threshold": [threshold], "max_shard_gb": 3e-5}
    merge.run(config(made, tmp_path / "one", workers=1, **options))
    merge.run(config(tmp_path, tmp_path / "other", workers=3, **options))
    assert len(file_hashes(tmp_path / "one/model")) > 3
    assert file_hashes(tmp_path / "one/model") == file_hashes(tmp_path / "other/model")


def test_a_sweep_and_a_chosen_threshold(made, tmp_path):
    rhos = sorted(rhos_of(made).values())
    sweep = merge.run(config(made, tmp_path / "sweep", cos_threshold=[0.0, 1.0]))
    assert [merged.manifest.summary.get("merged", 0) for merged in sweep.merged] == [0, len(rhos)]
    chosen = merge.run(config(made, tmp_path / "auto", threshold="auto", merge_fraction=0.5))
    assert chosen.manifest.summary["merged"] == round(len(rhos) / 2)
    report = merge.run(config(made, tmp_path / "report", cos_threshold=[1.0], output="report"))
    assert report.manifest.summary["merged"] == len(rhos)
    assert not (tmp_path / "report/model").exists()


def test_half_precision_keeps_its_dtype(made, tmp_path):
    for name in ("task", "safe"):
        LlamaForCausalLM.from_pretrained(made / name).bfloat16().save_pretrained(tmp_path / name)
    given = {"finetuned": str(tmp_path / "task"), "safe": str(tmp_path / "safe"), "cos_threshold": [1.0]}
    merge.run(config(made, tmp_path / "out", **given))
    found, task = weights(tmp_path / "out/model"), weights(tmp_path / "task")
    safe = weights(tmp_path / "safe")
    name = "model.layers.1.mlp.up_proj.weight"
    assert found[name].dtype == torch.bfloat16
    expected = 0.8 * task[name].float() + 0.2 * safe[name].float()
    torch.testing.assert_close(found[name].float(), expected, rtol=2**-8, atol=0)


def mixtral(seed):
    torch.manual_seed(seed)
    return MixtralForCausalLM(
        MixtralConfig(vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                      num_key_value_heads=2, num_local_experts=3, tie_word_embeddings=False)
    )  # fmt: skip


@pytest.mark.parametrize("stacked", [False, True])
def test_each_expert_is_a_matrix_of_its_own(tmp_path, stacked):
    """Mixtures of experts, whose matrices lie apart or in one stack on disk."""
    for seed, name in enumerate(("aligned", "unaligned", "task", "safe")):
        save_model(tmp_path / name, seed, build=mixtral)
        if stacked:
            rewrite(tmp_path / name / "model.safetensors", _stack)
    result = merge.run(config(tmp_path, tmp_path / "out", cos_threshold=[1.0], weights=[0.5, 0.5]))
    experts = [record for record in result.merged[0].records if "experts" in record.layer]
    assert len(experts) == 2 * 3 * 3
    names = ("task", "safe", "aligned", "unaligned", "out/model")
    task, safe, base, unaligned, found = (weights(tmp_path / name) for name in names)
    for record in experts:
        name, _, index = record.layer.removesuffix("]").partition("[")
        at = (int(index),) if index else ()
        D = task[name][at].double() - base[name][at].double()
        assert record.rho == pytest.approx(plain.rho(base[name][at], unaligned[name][at], D), rel=1e-4)
        assert record.depth in (0, 1)
        expected = 0.5 * task[name][at] + 0.5 * safe[name][at]
        torch.testing.assert_close(found[name][at], expected, rtol=1e-6, atol=1e-7)
    assert {record.module_type for record in experts} == {"w1", "w2", "w3"}
    if not stacked:
        load_model(resolve_model(str(tmp_path / "out")), precision="fp32")(TOKENS)


def _stack(tensors):
    kept = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for layer in range(2):
        for part in ("w1", "w2", "w3"):
            path = f"model.layers.{layer}.block_sparse_moe.experts"
            kept[f"{path}.{part}"] = torch.stack([tensors[f"{path}.{e}.{part}.weight"] for e in range(3)])
    return kept


def test_models_that_do_not_fit_are_refused(made, tmp_path):
    save_model(tmp_path / "deeper", 3, num_hidden_layers=4)
    with pytest.raises(InputError, match="not in all models"):
        merge.run(config(made, tmp_path / "out", safe=str(tmp_path / "deeper")))
    allowed = merge.run(config(made, tmp_path / "out", safe=str(tmp_path / "deeper"), allow_unpaired=True))
    assert any("model.layers.3" in text for text in allowed.unpaired)
    save_model(tmp_path / "wider", 3, intermediate_size=64)
    with pytest.raises(InputError, match=r"is \[32, 64\] in .* and should be \[32, 48\]"):
        merge.run(config(made, tmp_path / "no", safe=str(tmp_path / "wider")))
    with pytest.raises(ConfigError, match="--aligned"):
        merge.run(config(made, tmp_path / "no", aligned=None))
    assert not (tmp_path / "no").exists()


def test_merges_one_after_another_are_the_uniform_average(made, tmp_path):
    names = ["aligned", "task", "safe", "unaligned"]
    average = made / names[0]
    for number, name in enumerate(names[1:], start=1):
        share = round(number / (number + 1), 10)
        result = merge.run(
            MergeConfig(
                finetuned=str(average),
                safe=str(made / name),
                method="linear",
                weights=[share, round(1 - share, 10)],
                out=tmp_path / name,
            )
        )
        average = result.path
    found = weights(average / "model")
    models = [weights(made / name) for name in names]
    for name, tensor in found.items():
        wanted = sum(model[name].double() for model in models) / len(models)
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-7)
