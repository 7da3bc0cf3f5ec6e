"""What identifies a model is what is read of it: shards of any name, files that change meanwhile, bases of adapters."""

import json
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_registry.core.errors import ArtifactError, InputError
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig
from pipelines.models.hub import SMALL_FILES
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.weights.stored import open_checkpoint
from tests.models.small_models import TOKENS, adapt, tiny


def index(directory: Path, name: str) -> Path:
    """Have the only weight file found by an index, under another name."""
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    weight_map = dict.fromkeys(weights, name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    target = directory / name
    target.parent.mkdir(exist_ok=True)
    save_file(weights, target, metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("name", ["weights.safetensors", "parts/a.safetensors"])
def test_the_fingerprint_covers_shards_of_any_name(model_dir, name):
    file = index(model_dir, name)
    before = resolve_model(str(model_dir))
    torch.testing.assert_close(
        load_model(before, precision="fp32")(TOKENS).logits, tiny().eval()(TOKENS).logits, rtol=0, atol=0
    )
    fingerprint = before.fingerprint()
    save_file({key: 0.5 * value for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    assert resolve_model(str(model_dir)).fingerprint() != fingerprint


def test_shards_that_are_links_load_as_in_the_cache_of_the_hub(model_dir, tmp_path):
    file = index(model_dir, "weights.safetensors")
    (tmp_path / "blobs").mkdir()
    shutil.move(file, tmp_path / "blobs" / "0a1b")
    file.symlink_to("../blobs/0a1b")
    load_model(resolve_model(str(model_dir)), precision="fp32")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../w.safetensors", "lies outside the model's directory"),
        ("/tmp/w.safetensors", "lies outside the model's directory"),
        ("parts/../../w.safetensors", "lies outside the model's directory"),
        ("..\\w.safetensors", "lies outside the model's directory"),
        ("w.bin", "is no safetensors file"),
        ("", "is no safetensors file"),
        (7, "is no safetensors file"),
        (None, "is no safetensors file"),
        ("w\0.safetensors", "is no safetensors file"),
    ],
)
def test_names_of_shards_that_lead_elsewhere_are_refused(model_dir, name, message):
    index(model_dir, "weights.safetensors")
    weight_map = {"lm_head.weight": name}
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with pytest.raises(InputError, match=message):
        resolve_model(str(model_dir))


@pytest.mark.parametrize(
    "file",
    ["tekken.json", "vocab.bpe", "merges.txt", "tokenizer.model.v3", "chat_template.jinja", "custom_generate/a.py",
     "additional_chat_templates/tools.jinja", "modeling_own.py", "special_tokens_map.json"],
)  # fmt: skip
def test_the_fingerprint_covers_every_file_that_changes_answers(model_dir, file):
    before = resolve_model(str(model_dir)).fingerprint()
    (model_dir / file).parent.mkdir(exist_ok=True)
    (model_dir / file).write_text("{}")
    assert resolve_model(str(model_dir)).fingerprint() != before


def test_small_files_of_the_hub_are_all_but_the_weights():
    assert not any("safetensors" in pattern for pattern in SMALL_FILES)


def test_a_tensor_that_the_index_does_not_name_belongs_to_the_model_all_the_same(sharded_dir):
    """As transformers loads it; merges, which read tensors by name, would leave it out."""
    whole = open_checkpoint(resolve_model(str(sharded_dir))).stored
    file = sharded_dir / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    shard = Counter(index["weight_map"].values()).most_common(1)[0][0]
    forgotten = next(name for name, place in index["weight_map"].items() if place == shard)
    del index["weight_map"][forgotten]
    file.write_text(json.dumps(index))
    assert open_checkpoint(resolve_model(str(sharded_dir))).stored.keys() == whole.keys()


# --- A model that changes while it is read ------------------------------------------------------------------------


def run_of(target: Path, model, **options) -> Path:
    with write_artifact(target, "run", CommandConfig(), [], **options) as writer:
        model.save_pretrained(writer.path / "model")
    return target


def test_a_run_that_is_replaced_after_it_was_found_is_refused(tmp_path):
    run = run_of(tmp_path / "run", tiny())
    source = resolve_model(str(run))
    run_of(run, tiny(seed=1), overwrite=True)
    with pytest.raises(ArtifactError, match="changed while it was being read"):
        load_model(source, precision="fp32")
    with pytest.raises(ArtifactError, match="changed while it was being read"):
        source.fingerprint()
    load_model(resolve_model(str(run)), precision="fp32")


def test_a_directory_that_is_written_while_its_weights_are_read(model_dir, monkeypatch):
    source = resolve_model(str(model_dir))
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained

    def slow(*args, **options):
        loaded = load(*args, **options)
        tiny(seed=1).save_pretrained(model_dir)
        return loaded

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", slow)
    with pytest.raises(ArtifactError, match="changed while it was being read") as caught:
        load_model(source, precision="fp32")
    assert caught.value.exit_code == 3


def test_a_directory_that_another_stood_in_for_meanwhile(model_dir, tmp_path):
    """The files at the end are those of the beginning, and what was read between may be another model's."""
    source = resolve_model(str(model_dir))
    other, aside = tmp_path / "other", tmp_path / "aside"
    tiny(seed=1).save_pretrained(other)
    model_dir.rename(aside)
    other.rename(model_dir)
    model_dir.rename(other)
    aside.rename(model_dir)
    with pytest.raises(ArtifactError, match="changed while it was being read") as caught:
        load_model(source, precision="fp32")
    assert caught.value.where == str(model_dir)


def test_a_run_that_another_stood_in_for_meanwhile(tmp_path):
    source = resolve_model(str(run_of(tmp_path / "run", tiny())))
    (tmp_path / "run").rename(tmp_path / "aside")
    (tmp_path / "aside").rename(tmp_path / "run")
    with pytest.raises(ArtifactError, match="changed while it was being read"):
        source.fingerprint()


def test_what_is_written_beside_a_model_s_files_does_not_change_it(model_dir, tmp_path):
    run = run_of(tmp_path / "run", tiny())
    sources = [resolve_model(str(model_dir)), resolve_model(str(run))]
    (model_dir / "notes.txt").write_text("seen")
    (run / "results").mkdir()
    for source in sources:
        load_model(source, precision="fp32")


def test_the_base_of_an_adapter_is_watched_too_and_other_processes_look_for_themselves(model_dir, tmp_path):
    adapt(model_dir, tmp_path / "adapter")
    source = resolve_model(str(tmp_path / "adapter"))
    (model_dir / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ArtifactError, match="changed while it was being read") as caught:
        source.check_unchanged()
    assert caught.value.where == str(model_dir / "chat_template.jinja")
    pickle.loads(pickle.dumps(source)).check_unchanged()  # as it is sent to other ranks


def test_weights_of_a_run_that_were_edited_have_no_fingerprint(tmp_path):
    run = run_of(tmp_path / "run", tiny())
    tiny(seed=1).save_pretrained(run / "model")
    with pytest.raises(ArtifactError, match=r"model.safetensors was changed after it was written"):
        resolve_model(str(run)).fingerprint()


# --- What is made from an adapter ---------------------------------------------------------------------------------


def gone_on_from(adapter: Path, target: Path) -> Path:
    """A run that went on from an adapter, as a training command records it."""
    source = resolve_model(str(adapter))
    with write_artifact(target, "run", CommandConfig(), source.input_records()) as writer:
        load_model(source, precision="fp32", for_training=True).save_pretrained(writer.path / "model")
    return target


def test_a_run_that_went_on_from_an_adapter_is_a_model(model_dir, tmp_path):
    expected = adapt(model_dir, tmp_path / "adapter")
    first = gone_on_from(tmp_path / "adapter", tmp_path / "first")
    second = gone_on_from(first, tmp_path / "second")
    for run in (first, second):
        source = resolve_model(str(run))
        assert [record.role for record in source.run[1].inputs] == ["model", "base"]
        assert source.base.path_or_id == str(model_dir)
        torch.testing.assert_close(load_model(source, precision="fp32")(TOKENS).logits, expected, rtol=0, atol=1e-5)
    tiny(seed=7).save_pretrained(model_dir)
    with pytest.raises(ArtifactError, match="is not the one that it was trained on"):
        resolve_model(str(second))


def test_a_base_that_was_named_from_its_own_directory_is_found_from_any(model_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(model_dir.parent)
    relative = resolve_model("model")
    assert relative.reference == "model"
    assert relative.input_record().path == str(model_dir)
    loaded = load_model(relative, precision="fp32")
    assert loaded.name_or_path == str(model_dir)
    adapt(Path("model"), tmp_path / "adapter")
    monkeypatch.chdir(os.sep)
    assert resolve_model(str(tmp_path / "adapter")).base.path_or_id == str(model_dir)


def test_weights_in_memory_do_not_change_with_the_file(model_dir):
    loaded = load_model(resolve_model(str(model_dir)), precision="fp32")
    before = {name: parameter.clone() for name, parameter in loaded.named_parameters()}
    file = model_dir / "model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(-1000, os.SEEK_END)
        stream.write(bytes(1000))  # in place, as cp does
    assert all(torch.equal(parameter, before[name]) for name, parameter in loaded.named_parameters())
