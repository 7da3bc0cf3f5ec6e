"""Manifests: every damage is found, and what is recorded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_registry.core.errors import ArtifactError, InputError
from data_registry.core.manifest import (
    as_input,
    open_artifact,
    read_manifest,
    verify,
)
from pipelines.core import artifact
from tests.core.small_artifacts import make


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("artifacts") / "whole"
    make(target)
    return target


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_239), st.integers(0, 7))
def test_every_flipped_bit_is_found(whole: Path, position: int, bit: int) -> None:
    file = whole / "rows.bin"
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    original, manifest = file.read_bytes(), read_manifest(whole)
    file.write_bytes(content)
    try:
        assert verify(whole, manifest, hashes=True) == ["rows.bin was changed after it was written"]
        with pytest.raises(ArtifactError, match="does not verify"):
            open_artifact(whole, "dataset", hashes=True)
    finally:
        file.write_bytes(original)


def test_truncation_is_found_without_reading_contents(tmp_path: Path) -> None:
    target = tmp_path / "out"
    manifest = make(target)
    os.truncate(target / "rows.bin", 100)
    assert verify(target, manifest, hashes=False) == ["rows.bin has 100 bytes, not 10240"]
    with pytest.raises(ArtifactError, match="has 100 bytes, not 10240") as caught:
        open_artifact(target, "dataset")
    assert "--overwrite" in str(caught.value.fix)


def test_missing_files_and_edited_manifests_are_found(tmp_path: Path) -> None:
    target = tmp_path / "out"
    manifest = make(target)
    del manifest.files["rows.bin"]
    assert verify(target, manifest, hashes=True) == ["manifest.json was changed after it was written"]
    (target / "deep" / "index.json").unlink()
    assert verify(target, manifest, hashes=False) == ["deep/index.json is missing"]


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    raw = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({**raw, "schema_version": 99, "unheard_of": 1}))
    with pytest.raises(ArtifactError, match="newer ogpsa"):
        read_manifest(target)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b'{"kind": 3}', b"\xff\xfe", b"[" * 100_000, b'{"files": {"a": 1}}']
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        read_manifest(tmp_path)


def test_what_is_no_artifact_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_artifact(tmp_path / "nothing", "dataset")
    with pytest.raises(InputError, match="not an artifact"):
        open_artifact(tmp_path, "dataset")


def test_another_kind_is_refused(whole: Path) -> None:
    with pytest.raises(ArtifactError, match="is a dataset, where a basis or run is needed"):
        open_artifact(whole, ["basis", "run"])


def test_inputs_are_recorded_with_absolute_paths(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole.parent)
    record = as_input("data", Path("whole"), read_manifest(Path("whole")))
    assert record.path == str(whole)


def test_the_manifest_has_the_command_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "_recorded_command", None)
    artifact.record_command(["prepare-data", "a b"])
    assert make(tmp_path / "out").command == ["ogpsa", "prepare-data", "a b"]
