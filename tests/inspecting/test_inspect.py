"""inspect: what lies at a path, its lineage, and what is wrong with it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

import data_registry.testbed
from data_registry.core.errors import ArtifactError, InputError
from data_registry.core.manifest import InputRecord, as_input, hash_file, read_manifest, verify
from pipelines.commands import inspect
from pipelines.configs.tools import InspectConfig
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig, option
from pipelines.inspecting import artifacts, lineage
from pipelines.models.reference import resolve_model
from pipelines.models.summary import summarize_model

TESTBED_MODEL = Path(data_registry.testbed.__file__).parent / "model"


class Sample(CommandConfig):
    """A command for tests."""

    seed: int = option(0, "Makes artifacts differ.")


def make(target: Path, kind: str, inputs: list[InputRecord], *, seed: int = 0) -> Path:
    with write_artifact(target, kind, Sample(seed=seed), inputs, overwrite=True) as writer:
        (writer.path / "content").write_text(f"{kind} {target.name} {seed}")
        writer.summary["seed"] = seed
    return target


def used(role: str, path: Path) -> InputRecord:
    return as_input(role, path, read_manifest(path))


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """file -> data -> basis -> run, and the model beside."""
    (tmp_path / "rows.jsonl").write_text("{}")
    source = InputRecord(
        role="source", path=str(tmp_path / "rows.jsonl"), kind="file", fingerprint=hash_file(tmp_path / "rows.jsonl")
    )
    shutil.copytree(TESTBED_MODEL, tmp_path / "model")
    model = resolve_model(str(tmp_path / "model")).input_record()
    data = make(tmp_path / "data", "dataset", [source])
    basis = make(tmp_path / "basis", "basis", [model, used("reference", data)])
    make(tmp_path / "run", "run", [model, used("basis", basis), used("data", data)])
    return tmp_path


def look(path: Path, *, fast: bool = False) -> artifacts.Inspection:
    return inspect.run(InspectConfig(path=path, fast=fast))


def states(found: artifacts.Inspection) -> dict[str, str]:
    """The state of every ancestor, by the path of roles to it."""
    result = {}

    def walk(ancestors: tuple[artifacts.Ancestor, ...], prefix: str) -> None:
        for ancestor in ancestors:
            result[prefix + ancestor.role] = ancestor.state
            walk(ancestor.inputs, f"{prefix}{ancestor.role}/")

    walk(found.inputs, "")
    return result


WHOLE = {
    "model": "intact",
    "basis": "intact",
    "basis/model": "intact",
    "basis/reference": "intact",
    "basis/reference/source": "intact",
    "data": "intact",  # its source stands above, below the basis
}


def test_a_whole_chain_is_intact(chain: Path) -> None:
    found = look(chain / "run")
    assert (found.kind, found.is_intact, found.compared) == ("run", True, True)
    assert states(found) == WHOLE
    assert found.inputs[2].note == "its inputs: see above"


def test_sizes_alone_say_less(chain: Path) -> None:
    content = (chain / "run" / "content").read_text()
    (chain / "run" / "content").write_text(content[::-1])
    assert look(chain / "run", fast=True).is_intact
    assert look(chain / "run").problems == ("content was changed after it was written",)
    assert states(look(chain / "run", fast=True))["model"] == "present"


def test_a_changed_file_is_found_in_the_lineage(chain: Path) -> None:
    (chain / "rows.jsonl").write_text("{} ")
    assert states(look(chain / "run")) == WHOLE | {"basis/reference/source": "changed"}


def test_a_changed_model_is_found_in_the_lineage(chain: Path) -> None:
    config = json.loads((chain / "model" / "config.json").read_text())
    (chain / "model" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    assert states(look(chain / "run")) == WHOLE | {"model": "changed", "basis/model": "changed"}


def test_a_damaged_ancestor_is_found(chain: Path) -> None:
    os.truncate(chain / "basis" / "content", 1)
    assert states(look(chain / "run"))["basis"] == "damaged"


def test_a_part_of_an_artifact_is_no_other_artifact(chain: Path) -> None:
    tokenizer = InputRecord(role="tokenizer", path=str(chain / "run"), kind="tokenizer", fingerprint="a" * 64)
    make(chain / "more", "dataset", [tokenizer])
    assert states(look(chain / "more")) == {"tokenizer": "present"}


def test_an_ancestor_made_anew_is_another_one(chain: Path) -> None:
    make(chain / "basis", "basis", [], seed=1)
    found = look(chain / "run")
    assert states(found)["basis"] == "changed"
    assert found.is_intact


def test_what_is_gone_is_gone(chain: Path) -> None:
    shutil.rmtree(chain / "data")
    (chain / "rows.jsonl").unlink()
    found = states(look(chain / "run"))
    assert (found["data"], found["basis/reference"]) == ("gone", "gone")


def test_a_folder_that_was_moved_as_a_whole_finds_itself(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    chain.rename(elsewhere)
    chain.mkdir()
    found = look(elsewhere / "run")
    assert (states(found)["basis"], states(found)["data"]) == ("moved", "moved")
    assert found.inputs[1].path == str(elsewhere / "basis")
    assert found.inputs[1].note == f"was {chain / 'basis'}"


def test_hub_inputs_are_remote(tmp_path: Path) -> None:
    record = InputRecord(role="model", path="org/name", kind="model", fingerprint="0123456789abcdef" * 2 + "01234567")
    make(tmp_path / "run", "run", [record])
    assert look(tmp_path / "run").inputs[0].state == "remote"


def test_a_circle_ends(tmp_path: Path) -> None:
    first = make(tmp_path / "a", "dataset", [])
    record = used("data", first)
    manifest = json.loads((first / "manifest.json").read_text())
    manifest["inputs"] = [record.model_dump()] * 3
    (first / "manifest.json").write_text(json.dumps(manifest))
    found = look(first)
    assert found.is_intact
    assert [ancestor.note for ancestor in found.inputs] == ["its inputs: see above"] * 3


def stages(folder: Path, number: int) -> Path:
    """A chain in which each stage trains the model before with a basis that was made from it."""
    run = make(folder / "run0", "run", [])
    for stage in range(1, number + 1):
        basis = make(folder / f"basis{stage}", "basis", [used("model", run)])
        run = make(folder / f"run{stage}", "run", [used("model", run), used("basis", basis)])
    return run


def test_each_ancestor_is_compared_and_spelled_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Path] = []

    def counting(path: Path, *args: object, **options: bool) -> list[str]:
        compared.append(path)
        return verify(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lineage, "verify", counting)
    found = look(stages(tmp_path, 12))
    # Each of twelve stages names two inputs, and its basis one.
    assert sorted(compared) == sorted(
        [*(tmp_path / f"run{n}" for n in range(12))] + [tmp_path / f"basis{n}" for n in range(1, 13)]
    )
    assert len(states(found)) == 3 * 12
    assert json.dumps(artifacts.as_json(found)).count('"role"') < 3 * 12 + 4


def test_artifacts_that_are_shown_together_share_their_lineage(chain: Path) -> None:
    seen = lineage.Lineage(hashes=False)
    first = artifacts.inspect(InspectConfig(path=chain / "run", fast=True), seen)
    second = artifacts.inspect(InspectConfig(path=chain / "basis", fast=True), seen)
    assert first.inputs[1].inputs[1].path == str(chain / "data")
    assert [(ancestor.role, ancestor.note) for ancestor in second.inputs] == [
        ("model", "not compared"),
        ("reference", "its inputs: see above"),
    ]


def test_a_lineage_that_is_too_deep_says_where_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "_MAX_DEPTH", 3)
    found = look(stages(tmp_path, 6))
    third = found.inputs[0].inputs[0].inputs[0]
    assert (third.path, third.inputs) == (str(tmp_path / "run3"), ())
    assert "inspect it by itself" in third.note


@pytest.mark.parametrize("path", ["", "x" * 5000, "a\0b", "/dev/null", "\x1b]0;title\x07"])
def test_an_input_that_no_path_can_name_is_gone(tmp_path: Path, path: str) -> None:
    record = InputRecord(role="data", path=path, kind="dataset", fingerprint="0" * 64)
    found = look(make(tmp_path / "run", "run", [record]))
    assert found.is_intact
    assert found.inputs[0].state in ("gone", "damaged", "changed", "present")


# --- Models ------------------------------------------------------------------------------------------------------


def test_a_model_directory_is_described(tmp_path: Path) -> None:
    found = look(TESTBED_MODEL)
    assert found.kind == "model"
    assert found.manifest is None
    assert found.is_intact
    assert found.model is not None
    assert (found.model.architecture, found.model.num_layers) == ("LlamaForCausalLM", 3)
    number = sum(tensor.numel() for tensor in load_file(TESTBED_MODEL / "model.safetensors").values())
    assert found.model.num_parameters == number
    assert found.model.dtypes == {"F32": number}
    assert found.model.has_tokenizer
    assert found.model.has_chat_template


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TESTBED_MODEL, tmp_path / "model"))


@pytest.mark.parametrize("size", [0, 5, 100, 100_000])
def test_truncated_weights_are_found(model: Path, size: int) -> None:
    os.truncate(model / "model.safetensors", size)
    found = look(model)
    assert not found.is_intact
    assert "model.safetensors is damaged" in found.problems[0]


@pytest.mark.parametrize("content", [b"not safetensors at all", b"\xff" * 100, b"\x02\x00\x00\x00\x00\x00\x00\x00[]"])
def test_foreign_weights_are_found(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert not look(model).is_intact


def test_missing_shards_and_weights_are_found(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert look(model).problems == ("it holds no weights (no .safetensors file)",)
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert look(model).problems == ("model-00001-of-00002.safetensors is missing",)


def test_a_damaged_configuration_is_found(model: Path) -> None:
    (model / "config.json").write_text("{")
    assert "config.json cannot be read" in look(model).problems[0]


def test_an_adapter_says_what_it_adapts(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "base"}))
    summary = summarize_model(model)
    assert (summary.architecture, summary.adapts) == ("PEFT LORA", "base")
    assert look(model).kind == "adapter"


# --- Refusals ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_inspected_is_refused(chain: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        look(chain / "none")
    with pytest.raises(InputError, match="is a file"):
        look(chain / "rows.jsonl")
    with pytest.raises(InputError, match="neither an artifact") as caught:
        look(chain)
    assert "basis" in str(caught.value.fix)


def test_a_damaged_manifest_is_refused(chain: Path) -> None:
    (chain / "run" / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match="damaged"):
        look(chain / "run")


def test_findings_are_json_ready(chain: Path) -> None:
    values = json.loads(json.dumps(artifacts.as_json(look(chain / "run"))))
    assert values["intact"] is True
    assert values["lineage"][1]["inputs"][0]["role"] == "model"
