"""Model references: what they resolve to, what identifies a model, and everything that must not be loaded."""

import shutil
from pathlib import Path

import pytest
import torch

from data_registry.core.errors import ArtifactError
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from tests.models.small_models import TOKENS, adapt, tiny


def make_run(target: Path, model, *, kind: str = "run", inputs=()) -> Path:
    with write_artifact(target, kind, CommandConfig(), inputs) as writer:
        model.save_pretrained(writer.path / "model")
    return target


# --- What loads --------------------------------------------------------------------------------------------------


def test_a_folder_called_model_is_only_taken_where_the_manifest_has_it(tmp_path):
    with write_artifact(tmp_path / "m", "model", CommandConfig(), []) as writer:
        tiny().save_pretrained(writer.path)
    tiny(seed=1).save_pretrained(tmp_path / "m" / "model")
    model = load_model(resolve_model(str(tmp_path / "m")), precision="fp32")
    torch.testing.assert_close(model(TOKENS).logits, tiny().eval()(TOKENS).logits, rtol=0, atol=0)


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
