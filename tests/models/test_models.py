"""Model references: what they resolve to, what identifies a model, and everything that must not be loaded."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import errors
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from data_registry.core.errors import ArtifactError, InputError
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model

TOKENS = torch.arange(6)[None]


def tiny(seed: int = 0, **options) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**settings, **options}))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    # The library reads the variable when it is imported; nothing in these tests may wait for a network.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def model_dir(tmp_path) -> Path:
    tiny().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sharded_dir(tmp_path) -> Path:
    tiny().save_pretrained(tmp_path / "sharded", max_shard_size="4KB")
    return tmp_path / "sharded"


def change_config(directory: Path, **changes) -> None:
    config = json.loads((directory / "config.json").read_text())
    config.update(changes)
    (directory / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def refusal(reference: Path | str, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        load_model(resolve_model(str(reference)), precision="fp32", **options)
    assert "Traceback" not in str(caught.value)
    return caught.value


def make_run(target: Path, model, *, kind: str = "run", inputs=()) -> Path:
    with write_artifact(target, kind, CommandConfig(), inputs) as writer:
        model.save_pretrained(writer.path / "model")
    return target


# --- What loads --------------------------------------------------------------------------------------------------


def test_a_directory_loads_as_it_was_saved(model_dir):
    model = load_model(resolve_model(str(model_dir)), precision="fp32")
    assert not model.training
    torch.testing.assert_close(model(TOKENS).logits, tiny().eval()(TOKENS).logits, rtol=0, atol=0)


def test_shards_load_as_one_file_does(sharded_dir):
    model = load_model(resolve_model(str(sharded_dir)), precision="fp32")
    torch.testing.assert_close(model(TOKENS).logits, tiny().eval()(TOKENS).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("precision", "for_training", "dtype"),
    [("fp32", False, torch.float32), ("bf16", False, torch.bfloat16), ("bf16", True, torch.float32)],
)
def test_weights_are_bf16_only_where_they_are_not_trained(model_dir, precision, for_training, dtype):
    model = load_model(resolve_model(str(model_dir)), precision=precision, for_training=for_training)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.training == for_training


def test_the_attention_implementation_is_passed_on(model_dir):
    model = load_model(resolve_model(str(model_dir)), precision="fp32", attention="eager")
    assert model.config._attn_implementation == "eager"


def test_tied_parameters_are_loaded_once(model_dir):
    model = load_model(resolve_model(str(model_dir)), precision="fp32")
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert next(iter(shapes.items())) == ("model.embed_tokens.weight", (50, 16))
    assert not any(name.startswith("lm_head") for name in shapes)  # tied to the embeddings
    assert len(shapes) == 2 + 2 * 9


def test_a_run_stands_for_its_final_model(tmp_path):
    run = make_run(tmp_path / "run", tiny(seed=3))
    source = resolve_model(str(run))
    assert source.path_or_id == str(run / "model")
    assert source.name == "run"
    record = source.input_record("start")
    assert (record.role, record.kind, record.path) == ("start", "run", str(run))
    torch.testing.assert_close(
        load_model(source, precision="fp32")(TOKENS).logits, tiny(seed=3).eval()(TOKENS).logits, rtol=0, atol=0
    )


def test_an_artifact_of_another_kind_is_no_model(tmp_path):
    other = make_run(tmp_path / "data", tiny(), kind="dataset")
    with pytest.raises(ArtifactError, match="is a dataset, where a run or model is needed"):
        resolve_model(str(other))


# --- Adapters ----------------------------------------------------------------------------------------------------


def adapt(base_dir: Path, target: Path, **options) -> torch.Tensor:
    """Save an adapter that changes the model, and return the logits of the adapted model."""
    base = load_model(resolve_model(str(base_dir)), precision="fp32")
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, **options)
    adapted = get_peft_model(base, config).eval()
    adapted.save_pretrained(target)
    with torch.no_grad():
        return adapted(TOKENS).logits


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


# --- The hub, out of reach ---------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of the hub in which org/tiny was fetched beforehand."""
    root = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    repository = root / "models--org--tiny"
    tiny(seed=4).save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_a_model_fetched_beforehand_loads_without_a_network(cache):
    source = resolve_model("org/tiny")
    assert (source.path_or_id, source.revision, source.name) == ("org/tiny", COMMIT, "tiny")
    assert source.fingerprint() == COMMIT
    assert source.input_record().path == "org/tiny"
    model = load_model(source, precision="fp32")
    torch.testing.assert_close(model(TOKENS).logits, tiny(seed=4).eval()(TOKENS).logits, rtol=0, atol=0)
    assert model.name_or_path == "org/tiny"


def test_a_revision_that_was_not_fetched_is_named(cache):
    assert resolve_model("org/tiny", revision=COMMIT).revision == COMMIT
    with pytest.raises(InputError, match="nor has its cache revision 'v2' of it"):
        resolve_model("org/tiny", revision="v2")


def test_a_model_of_which_only_the_configuration_was_fetched(cache):
    (cache / "snapshots" / COMMIT / "model.safetensors").unlink()
    error = refusal("org/tiny")
    assert "holds no weights" in error.what


def test_a_repository_that_is_no_model(cache):
    (cache / "snapshots" / COMMIT / "config.json").unlink()
    assert "on the hub is not a model for transformers" in refusal("org/tiny").what


def test_an_adapter_on_a_hub_model_finds_it_again(cache, tmp_path):
    base = load_model(resolve_model("org/tiny"), precision="fp32")
    get_peft_model(base, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path / "adapter")
    source = resolve_model(str(tmp_path / "adapter"))
    assert source.base is not None
    assert source.base.path_or_id == "org/tiny"


@pytest.mark.parametrize("reference", ["a..b/c", "org/none"])
def test_what_is_neither_here_nor_there(cache, reference):
    assert "is no directory here" in refusal(reference).what


def failing(kind: type[Exception]):
    """A download that fails as the hub would make it fail, without a response to build it from."""

    def snapshot_download(*_, **__):
        error = kind.__new__(kind)
        Exception.__init__(error, "403 or 404")
        error.response = SimpleNamespace(status_code=403)
        raise error

    return snapshot_download


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.GatedRepoError, "needs its terms accepted on the hub"),
        (errors.RepositoryNotFoundError, "is neither a directory here nor a model on the hub"),
        (errors.RevisionNotFoundError, "has no revision 'v2'"),
        (errors.HfHubHTTPError, "cannot be fetched from the hub: 403 or 404"),
        (OSError, "cannot be fetched from the hub"),
    ],
)
def test_what_the_hub_refuses_is_explained(monkeypatch, kind, message):
    monkeypatch.setattr("huggingface_hub.snapshot_download", failing(kind))
    with pytest.raises(InputError) as caught:
        resolve_model("org/name", revision="v2")
    assert message in caught.value.what


def test_weights_are_fetched_when_they_are_needed_and_not_before(cache, monkeypatch):
    folder, asked = cache / "snapshots" / COMMIT, []
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()

    def snapshot_download(reference, *, revision, allow_patterns):
        asked.append((reference, revision))
        if any(fnmatch("model.safetensors", pattern) for pattern in allow_patterns):
            (folder / "model.safetensors").write_bytes(weights)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    source = resolve_model("org/tiny")
    assert not (folder / "model.safetensors").exists()
    load_model(source, precision="fp32")
    assert asked == [("org/tiny", None), ("org/tiny", COMMIT)]


# --- What identifies a model -------------------------------------------------------------------------------------


def test_the_fingerprint_moves_with_the_directory(model_dir, tmp_path):
    before = resolve_model(str(model_dir)).fingerprint()
    shutil.copytree(model_dir, tmp_path / "copy")
    assert resolve_model(str(tmp_path / "copy")).fingerprint() == before


def test_the_fingerprint_leaves_out_what_changes_no_answer(model_dir):
    before = resolve_model(str(model_dir)).fingerprint()
    (model_dir / "README.md").write_text("a model")
    (model_dir / "all_results.json").write_text("{}")
    (model_dir / "optimizer.pt").write_bytes(b"x")
    assert resolve_model(str(model_dir)).fingerprint() == before


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer.json", "generation_config.json"])
def test_the_fingerprint_covers_what_changes_answers(model_dir, file):
    before = resolve_model(str(model_dir)).fingerprint()
    (model_dir / file).write_text("{}")
    assert resolve_model(str(model_dir)).fingerprint() != before


def test_the_fingerprint_covers_weights_and_an_adapters_base(model_dir, tmp_path):
    adapt(model_dir, tmp_path / "adapter")
    plain, adapted = resolve_model(str(model_dir)).fingerprint(), resolve_model(str(tmp_path / "adapter")).fingerprint()
    tiny(seed=1).save_pretrained(model_dir)
    assert resolve_model(str(model_dir)).fingerprint() != plain
    assert resolve_model(str(tmp_path / "adapter")).fingerprint() != adapted


# --- What is refused ---------------------------------------------------------------------------------------------


def test_a_missing_directory_is_not_looked_for_on_the_hub(tmp_path):
    assert "does not exist" in str(refusal(tmp_path / "missing"))
    assert "does not exist" in str(refusal("./missing"))


def test_a_misspelt_directory_is_suggested(model_dir, monkeypatch):
    monkeypatch.chdir(model_dir.parent)
    error = refusal("modle")
    assert "neither the hub can be reached nor has its cache a copy" in error.what
    assert "did you mean 'model'" in str(error)


def test_a_file_is_no_model(model_dir):
    assert "is a file" in str(refusal(model_dir / "model.safetensors"))


def test_a_revision_goes_with_the_hub_only(model_dir):
    with pytest.raises(InputError, match="--revision main is for models on the hub"):
        resolve_model(str(model_dir), revision="main")


def test_an_empty_directory_is_no_model(tmp_path):
    assert "has no config.json" in str(refusal(tmp_path))


def test_damaged_weights_name_the_file(model_dir):
    file = model_dir / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    error = refusal(model_dir)
    assert "'model.safetensors' is damaged" in error.what
    file.write_bytes(b"not safetensors at all")
    assert "'model.safetensors' is damaged" in refusal(model_dir).what


def test_missing_and_damaged_shards_are_named(sharded_dir):
    shards = sorted(sharded_dir.glob("model-*.safetensors"))
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    assert shards[1].name in refusal(sharded_dir).what
    shards[1].unlink()
    error = refusal(sharded_dir)
    assert "1 of 9 weight files are missing" in error.what
    assert error.where == shards[1].name


def test_pickled_weights_are_refused_with_the_conversion(model_dir):
    (model_dir / "model.safetensors").unlink()
    (model_dir / "pytorch_model.bin").write_bytes(b"never opened")
    error = refusal(model_dir)
    assert "pickled (pytorch_model.bin)" in error.what
    assert "save_pretrained" in str(error.fix)


def test_a_model_without_weights_is_refused(model_dir):
    (model_dir / "model.safetensors").unlink()
    assert "holds no weights" in refusal(model_dir).what


def test_weights_that_the_files_lack_are_never_made_up(model_dir):
    change_config(model_dir, num_hidden_layers=3)
    error = refusal(model_dir)
    assert "9 weights" in error.what
    assert "model.layers.2.input_layernorm.weight" in str(error.where)


def test_an_untied_head_that_was_not_saved_is_missed(model_dir):
    change_config(model_dir, tie_word_embeddings=False)
    assert refusal(model_dir).where == "lm_head.weight"


def test_weights_of_other_shapes_name_the_first(model_dir):
    change_config(model_dir, intermediate_size=48)
    error = refusal(model_dir)
    assert "model.layers.0.mlp.down_proj.weight is [16, 32] in model.safetensors and should be [16, 48]" in error.what


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "lama"}, "does not know model type 'lama' (did you mean 'llama'?)"),
        ({"model_type": None}, "names no model_type"),
        ({"model_type": "t5"}, "is not a causal language model"),
        ({"hidden_size": "large"}, "hidden_size"),
        ({"num_attention_heads": 3}, "attention heads"),
        ({"model_type": "newest", "auto_map": {"AutoModelForCausalLM": "code.Model"}}, "brings its own code"),
    ],
)
def test_configurations_that_cannot_be_used(model_dir, changes, message):
    change_config(model_dir, **changes)
    assert message in str(refusal(model_dir))


def test_a_damaged_configuration_is_named(model_dir):
    (model_dir / "config.json").write_text("{")
    error = refusal(model_dir)
    assert "'config.json' cannot be read" in error.what
    assert error.where == str(model_dir / "config.json")


def test_a_classifier_is_no_language_model(model_dir):
    LlamaForSequenceClassification(tiny().config).save_pretrained(model_dir)
    assert "is not a causal language model but LlamaForSequenceClassification" in refusal(model_dir).what


def test_an_unknown_attention_is_refused(model_dir):
    assert "attention 'flesh'" in refusal(model_dir, attention="flesh").what
