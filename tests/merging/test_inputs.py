"""What must be refused, with a reason, and without leaving anything half-written."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from data_registry.core.errors import ArtifactError, ConfigError, InputError, NumericsError
from pipelines.commands import merge
from pipelines.configs.merge import MergeConfig
from pipelines.core.config import resolve
from pipelines.weights.writing import TensorFile
from tests.reference.merge_inputs import (
    CONFIG,
    WEIGHTS,
    edit_json,
    file_hashes,
    remove,
    rewrite,
    save_adapter,
    save_model,
)

QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    base = save_model(root / "base", 0)
    save_model(root / "unaligned", 1, shard="20KB")
    for seed, name in ((2, "task"), (3, "safe")):
        save_adapter(root / name, base, seed, target_modules=["q_proj", "up_proj"])
    return root


@pytest.fixture
def made(originals, tmp_path):
    """Inputs of one's own, to spoil."""
    shutil.copytree(originals, tmp_path / "inputs")
    for name in ("task", "safe"):
        edit_json(tmp_path / "inputs" / name / CONFIG, base_model_name_or_path=str(tmp_path / "inputs/base"))
    return tmp_path / "inputs"


def config(made, **options) -> MergeConfig:
    given = {name: str(made / path) for name, path in
             {"finetuned": "task", "safe": "safe", "unaligned": "unaligned"}.items()}  # fmt: skip
    return MergeConfig(**{**given, "cos_threshold": [1.0], "out": made.parent / "out", **options})


def refusal(made, kind=InputError, **options):
    with pytest.raises(kind) as caught:
        merge.run(config(made, **options))
    assert sorted(path.name for path in made.parent.iterdir()) == ["inputs"], "something was left behind"
    return caught.value


def a_shard(directory: Path) -> Path:
    return sorted(directory.glob("*.safetensors"))[1]


def set_value(value, key_part):
    def change(tensors):
        key = next(key for key in tensors if key_part in key)
        tensors[key].view(-1)[3] = value
        return tensors

    return change


# --- Damaged -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["task/" + WEIGHTS, "safe/" + WEIGHTS, "base/model.safetensors", "unaligned"])
def test_truncated_files_are_named(made, part):
    file = a_shard(made / part) if part == "unaligned" else made / part
    file.write_bytes(file.read_bytes()[:-100])
    error = refusal(made)
    assert "damaged" in error.what
    assert str(file) in error.where
    assert error.fix


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("part", "key"), [("task", "q_proj.lora_A"), ("safe", "up_proj.lora_B"), ("base", "1.mlp.up_proj")]
)
def test_values_that_are_not_finite_are_named(made, part, key, value):
    file = made / part / ("model.safetensors" if part == "base" else WEIGHTS)
    rewrite(file, set_value(value, key))
    error = refusal(made)
    assert "1 values of" in error.what
    assert key in error.what
    assert error.where == str(file)


def test_nan_in_a_full_model(made):
    for name in ("task2", "safe2"):
        shutil.copytree(made / "base", made / name)
    rewrite(made / "safe2/model.safetensors", set_value(float("nan"), "down_proj"))
    error = refusal(made, finetuned=str(made / "task2"), safe=str(made / "safe2"), aligned=str(made / "base"))
    assert "down_proj" in error.what
    assert "safe2" in error.where


@pytest.mark.parametrize(("part", "pickle"), [("task", "adapter_model.bin"), ("base", "pytorch_model.bin")])
def test_pickles_are_not_read(made, part, pickle):
    for file in (made / part).glob("*.safetensors"):
        file.unlink()
    (made / part / pickle).write_bytes(b"cos\nsystem\n(S'touch /tmp/run'\ntR.")
    error = refusal(made)
    assert "pickle" in error.what
    assert error.fix


def test_a_missing_shard_and_a_wrong_index(made):
    shard = a_shard(made / "unaligned")
    content = shard.read_bytes()
    shard.unlink()
    assert shard.name in refusal(made).where
    shard.write_bytes(content)
    other = sorted((made / "unaligned").glob("*.safetensors"))[0]
    shutil.copyfile(other, shard)
    assert "lacks" in refusal(made).what


def test_what_overflows_half_precision_is_not_written(made):
    for name in ("task", "safe"):
        rewrite(made / name / WEIGHTS, lambda tensors: {key: (900 * value).half() for key, value in tensors.items()})
        edit_json(made / name / CONFIG, lora_alpha=4 if name == "task" else 4e5)
    error = refusal(made, NumericsError)
    assert "float16" in error.what
    assert "layers.0" in error.what


# --- Of another sort or shape --------------------------------------------------------------------------------------


def test_models_of_another_size(made):
    save_model(made / "wide", 5, hidden_size=48)
    error = refusal(made, unaligned=str(made / "wide"))
    assert "should be [48, 32]" in error.what
    error = refusal(made, base=str(made / "wide"))
    assert "the weight is [48, 48]" in error.what
    shutil.rmtree(made / "safe")
    save_adapter(made / "safe", made / "wide", 3, target_modules=["q_proj", "up_proj"])
    assert "different shapes" in refusal(made).what


def test_a_weight_that_is_not_there(made):
    remove(made / "base/model.safetensors", "1.self_attn.q_proj")
    error = refusal(made)
    assert "has no weight 'model.layers.1.self_attn.q_proj.weight'" in error.what
    assert "by name" in error.fix


@pytest.mark.parametrize(
    ("change", "text"),
    [({"use_dora": True}, "DoRA"), ({"modules_to_save": ["lm_head"]}, "modules_to_save"), ({"peft_type": "IA3"}, "IA3"),
     ({"lora_bias": True}, "lora_bias"), ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
     ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
     ({"layer_replication": [[0, 2]]}, "replicated"), ({"r": 3}, "rank 3")],
)  # fmt: skip
def test_adapters_whose_factors_do_not_say_all(made, change, text):
    for name in ("task", "safe"):
        before = (made / name / CONFIG).read_text()
        edit_json(made / name / CONFIG, **change)
        error = refusal(made)
        assert text in error.what
        assert name in error.what
        assert error.fix
        (made / name / CONFIG).write_text(before)


def test_factors_of_different_ranks_cannot_be_added(made):
    shutil.rmtree(made / "safe")
    save_adapter(made / "safe", made / "base", 3, rank=6, target_modules=["q_proj", "up_proj"])
    error = refusal(made, original_semantics=True)
    assert "different ranks: 4 and 6" in error.what
    assert "--original-semantics" in error.fix
    merge.run(config(made))


def test_a_lone_factor_and_an_unknown_tensor(made):
    remove(made / "task" / WEIGHTS, "0.mlp.up_proj.lora_B")
    error = refusal(made)
    assert "only factor A" in error.what
    assert "layers.0.mlp.up_proj" in error.where
    rewrite(
        made / "task" / WEIGHTS, lambda tensors: {**tensors, "base_model.model.x.lora_magnitude_vector": torch.ones(3)}
    )
    assert "lora_magnitude_vector" in refusal(made).what


def test_quantised_and_integer_weights(made):
    edit_json(made / "unaligned/config.json", quantization_config={"quant_method": "fp8"})
    assert "quantised" in refusal(made).what
    edit_json(made / "unaligned/config.json", quantization_config=None)
    rewrite(made / "base/model.safetensors", lambda tensors: {**tensors, QUERY: tensors[QUERY].to(torch.int8)})
    assert "I8" in refusal(made).what


def test_an_adapter_with_a_full_model(made):
    assert "full model" in refusal(made, safe=str(made / "base")).what
    assert "adapter, where a full model" in refusal(made, unaligned=str(made / "safe")).what


# --- What lies there ---------------------------------------------------------------------------------------------


def test_the_same_again_is_up_to_date_and_another_is_refused(made):
    first = merge.run(config(made))
    assert not first.up_to_date
    assert merge.run(config(made, workers=3)).up_to_date
    with pytest.raises(ArtifactError, match="weights"):
        merge.run(config(made, weights=[0.5, 0.5]))
    assert merge.run(config(made)).up_to_date
    replaced = merge.run(config(made, weights=[0.5, 0.5], overwrite=True))
    assert replaced.manifest.config["weights"] == [0.5, 0.5]


def test_a_changed_input_is_noticed(made):
    merge.run(config(made))
    rewrite(made / "safe" / WEIGHTS, set_value(0.7, "q_proj.lora_A"))
    with pytest.raises(ArtifactError, match="safe"):
        merge.run(config(made))


def test_a_failing_sweep_leaves_nothing(made):
    rewrite(made / "task" / WEIGHTS, set_value(float("nan"), "2.mlp.up_proj.lora_B"))
    with pytest.raises(InputError):
        merge.run(config(made, cos_threshold=[0.1, 0.9]))
    assert not [path for path in (made.parent / "out").rglob("*") if path.is_file()]


_HELD = """
import signal, sys, time
from pathlib import Path
from pipelines.commands import merge
from pipelines.configs.merge import MergeConfig
from pipelines.merging import measuring
def held(*args, **kwargs):
    Path(sys.argv[1], "merging").touch()
    while True:  # a signal between the last instruction and one long sleep would be heard when that sleep ends
        time.sleep(0.05)
measuring.merge_layer = held
root = Path(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background hand on that it is ignored
merge.run(MergeConfig(finetuned=str(root / "inputs/task"), safe=str(root / "inputs/safe"), out=root / "out",
                      unaligned=str(root / "inputs/unaligned"), cos_threshold=[1.0]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_leaves_no_artifact_and_a_rerun_completes(made, number):
    root = made.parent
    child = subprocess.Popen([sys.executable, "-c", _HELD, str(root)], stderr=subprocess.DEVNULL, env={**os.environ})
    while not (root / "merging").exists():
        assert child.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    child.send_signal(number)
    assert child.wait(600) != 0
    assert not (root / "out").exists()
    left = [path for path in root.iterdir() if path.name.startswith(".out.partial")]
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    result = merge.run(config(made))
    assert not result.up_to_date
    assert not [path for path in root.iterdir() if path.name.startswith(".out")]
    merge.run(config(made, out=root / "straight"))
    assert file_hashes(root / "out/model") == file_hashes(root / "straight/model")


def test_a_file_that_was_not_closed_is_no_safetensors_file(tmp_path):
    from safetensors import SafetensorError, safe_open

    def stopped():
        with TensorFile(tmp_path / "x.safetensors", ["a", "b"]) as file:
            file.add("a", torch.ones(3))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    with pytest.raises(SafetensorError), safe_open(tmp_path / "x.safetensors", framework="pt"):
        pass


# --- Options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "text"),
    [({"weights": "0.8"}, "two numbers"), ({"weights": "-1,2"}, "none negative"), ({"weights": "0.8,x"}, "number"),
     ({"cos_threshold": "2"}, "from -1 to 1"), ({"cos_threshold": "0.2,0.2"}, "twice"),
     ({"unaligned": None}, "--unaligned is required"), ({"safe": None}, "--safe is required"),
     ({"density": 0.5}, "--density needs --method ties"), ({"method": "linear"}, "--unaligned needs --method"),
     ({"threshold": "auto"}, "--merge-fraction is required"), ({"merge_fraction": 0.5}, "needs --threshold auto"),
     ({"method": "safelora"}, "--safe needs --method"), ({"rank": 4, "output": "model"}, "--rank needs --output"),
     ({"original_semantics": True, "rank": 4}, "does not go with --rank"), ({"method": "slerp"}, "safemerge"),
     ({"method": "linear", "unaligned": None, "output": "report"}, "--output report has no effect")],
)  # fmt: skip
def test_options_that_contradict_each_other(tmp_path, flags, text):
    given = {"finetuned": "a", "safe": "b", "unaligned": "c", "out": str(tmp_path / "out"), **flags}
    with pytest.raises(ConfigError, match=text):
        resolve(MergeConfig, flags={name: value for name, value in given.items() if value is not None})


def test_options_are_read_from_flags_and_yaml_alike(tmp_path):
    flags = {
        "finetuned": "a",
        "safe": "b",
        "unaligned": "c",
        "out": "o",
        "weights": ["0.7,0.3"],
        "cos_threshold": ["0.2", "0.5"],
    }
    found = resolve(MergeConfig, flags=flags)
    assert (found.weights, found.cos_threshold) == ([0.7, 0.3], [0.2, 0.5])
    (tmp_path / "c.yaml").write_text(found.to_yaml())
    assert resolve(MergeConfig, file=tmp_path / "c.yaml") == found
    (tmp_path / "d.yaml").write_text(
        "finetuned: a\nsafe: b\nunaligned: c\nout: o\ncos_threshold: 0.5\nweights: 0.7, 0.3\n"
    )
    assert resolve(MergeConfig, file=tmp_path / "d.yaml").cos_threshold == [0.5]
