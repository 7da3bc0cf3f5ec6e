"""Prepared rows are read without ``datasets`` where their files are as they were written, and with it elsewhere."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import data_registry.prepared as prepared
from data_registry.core.errors import ArtifactError
from data_registry.prepared import load_prepared, prepared_table
from pipelines.commands import prepare_data
from pipelines.configs.prepare_data import PrepareDataConfig


def make(folder: Path, source: str = "testbed-reason") -> Path:
    prepare_data.run(PrepareDataConfig(source=source, num_samples=7, out=folder))
    return folder


@pytest.mark.parametrize("source", ["testbed-reason", "testbed-safety-dpo"])
def test_both_ways_give_the_same_rows(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "data", source)
    rows, manifest = load_prepared(path)
    monkeypatch.setattr(prepared, "_load", None)
    table, same = prepared_table(path)
    assert table.to_pylist() == rows.to_list()
    assert same == manifest


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_files_that_were_changed_are_left_to_datasets(name: str, tmp_path: Path) -> None:
    path = make(tmp_path / "data")
    text = (path / name).read_text()
    (path / name).write_text(text[:-1] + " " if text.endswith("\n") else text.replace('": ', '":\n', 1))
    asked, load = [], prepared._load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "_load", lambda *given: asked.append(given) or load(*given))
        prepared_table(path)
    assert asked


def test_no_damage_gets_by(tmp_path: Path) -> None:
    """Whatever bytes of the rows are other ones, both ways take the data set, with the same rows, or both refuse it."""
    path = make(tmp_path / "data")
    file = path / "data-00000.arrow"
    whole = file.read_bytes()
    generator = random.Random(4)
    refused = 0
    for _ in range(120):
        content = bytearray(whole)
        for place in generator.sample(range(len(content)), generator.choice([1, 1, 4, 40])):
            content[place] = generator.randrange(256)
        # A new file, because the rows of an earlier look are mapped into memory.
        file.unlink()
        file.write_bytes(content)
        outcomes: list[object] = []
        for read in (lambda: load_prepared(path)[0].to_list(), lambda: prepared_table(path)[0].to_pylist()):
            try:
                outcomes.append(read())
            except ArtifactError:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1]
        refused += outcomes[0] == "refused"
    assert 10 < refused < 120
