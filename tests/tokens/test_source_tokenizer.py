"""The tokenizer that goes with a model: its own, or the one of the model that it adapts."""

from __future__ import annotations

import shutil
from pathlib import Path

from data_registry.testbed import MODEL_DIR
from pipelines.models.reference import ModelSource
from pipelines.tokens.tokenizer import load_source_tokenizer, load_tokenizer

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def source(directory: Path, base: ModelSource | None = None) -> ModelSource:
    return ModelSource(str(directory), str(directory), directory, base=base)


def test_an_adapter_without_a_tokenizer_has_its_base_s(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    base = source(MODEL_DIR)
    found = load_source_tokenizer(source(tmp_path / "adapter", base))
    assert found.get_vocab() == load_tokenizer(MODEL_DIR).get_vocab()
    shutil.copytree(MODEL_DIR, tmp_path / "own")
    own = load_source_tokenizer(source(tmp_path / "own", source(tmp_path / "nowhere")))
    assert own.name_or_path == str(tmp_path / "own")


def test_a_chat_template_of_one_s_own_is_set(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(TEMPLATE, encoding="utf-8")
    assert load_source_tokenizer(source(MODEL_DIR), chat_template=file).chat_template == TEMPLATE
