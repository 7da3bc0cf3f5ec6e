"""Manifests: what an artifact is, how it was made, from what, and the hashes of its files; reading and verifying it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_registry.core.errors import ArtifactError, InputError, first_line
from data_registry.core.redaction import hide_arguments
from data_registry.core.regular_files import open_regular


def open_artifact(path: Path, kind: str | Sequence[str], *, hashes: bool = False) -> Manifest:
    """Read and verify an artifact that is to be used as input.

    Args:
        path: the artifact's directory.
        kind: the kind, or the kinds, that will do.
        hashes: verify contents too.

    Raises:
        InputError: there is no artifact.
        ArtifactError: it is of another kind, or does not verify.
    """
    manifest = read_manifest(path)
    kinds = [kind] if isinstance(kind, str) else list(kind)
    if manifest.kind not in kinds:
        raise ArtifactError(f"'{path}' is a {manifest.kind}, where a {' or '.join(kinds)} is needed", where=str(path))
    problems = verify(path, manifest, hashes=hashes)
    if problems:
        more = f" and {len(problems) - 1} more problems" if len(problems) > 1 else ""
        raise ArtifactError(
            f"'{path}' does not verify: {problems[0]}{more}",
            where=str(path),
            fix=f"make it again:  {_again(manifest)}",
        )
    return manifest


def _again(manifest: Manifest) -> str:
    words = [*manifest.command] if "--overwrite" in manifest.command else [*manifest.command, "--overwrite"]
    return shlex.join(hide_arguments(words))


def as_input(role: str, path: Path, manifest: Manifest) -> InputRecord:
    """The record of an artifact used as input; its path is absolute, so that lineage is found from anywhere."""
    return InputRecord(role=role, path=os.path.abspath(path), kind=manifest.kind, fingerprint=manifest.fingerprint)


MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_CHUNK_BYTES = 1 << 22


class FileRecord(BaseModel):
    """Size and content hash of one file of an artifact."""

    model_config = ConfigDict(extra="forbid")
    size: int
    sha256: str


class InputRecord(BaseModel):
    """One input of a command: what it was used as, where it lay, its kind and fingerprint."""

    model_config = ConfigDict(extra="forbid")
    role: str
    path: str
    kind: str
    fingerprint: str


class Manifest(BaseModel):
    """What an artifact is, how it was made, from what, and the hashes of its files."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int = SCHEMA_VERSION
    kind: str
    tool_version: str
    command: list[str]
    config: dict[str, Any]
    identity: str
    inputs: list[InputRecord] = Field(default_factory=list)
    files: dict[str, FileRecord] = Field(default_factory=dict)
    fingerprint: str = ""
    environment: dict[str, Any] = Field(default_factory=dict)
    started: str = ""
    finished: str = ""
    duration_s: float = 0.0
    summary: dict[str, Any] = Field(default_factory=dict)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex.

    Raises:
        InputError: it is no regular file: a pipe would be waited for, a device read for ever.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def hash_directory(root: Path, files: Sequence[Path] | None = None) -> dict[str, FileRecord]:
    """Records of the files below ``root`` (hidden ones and the manifest left out), by relative path, in order."""
    if files is None:
        files = [path for path in root.rglob("*") if path.is_file()]
    names = {path.relative_to(root).as_posix(): path for path in files}
    names = {name: path for name, path in sorted(names.items()) if name != MANIFEST and not name.startswith(".")}
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        hashes = pool.map(hash_file, names.values())
        return {
            name: FileRecord(size=path.stat().st_size, sha256=sha)
            for (name, path), sha in zip(names.items(), hashes, strict=True)
        }


def fingerprint_of(files: Mapping[str, FileRecord]) -> str:
    """One digest over names and content hashes, independent of where the directory lies."""
    text = json.dumps({name: record.sha256 for name, record in sorted(files.items())})
    return hashlib.sha256(text.encode()).hexdigest()


def is_artifact(path: Path) -> bool:
    """Whether ``path`` holds a manifest."""
    return (path / MANIFEST).is_file()


def read_manifest(path: Path) -> Manifest:
    """The manifest of the artifact at ``path``.

    Raises:
        InputError: nothing is there, or it has no manifest.
        ArtifactError: the manifest is damaged or of a newer schema.
    """
    if not path.exists():
        raise InputError(f"'{path}' does not exist")
    if not is_artifact(path):
        raise InputError(
            f"'{path}' is not an artifact: it has no {MANIFEST}",
            fix="name a directory that an ogpsa command wrote and finished; an unfinished one is not usable",
        )
    try:
        raw = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ArtifactError(
                f"'{path}' was written by a newer ogpsa (schema {version}; this one reads up to {SCHEMA_VERSION})",
                fix="upgrade ogpsa",
            )
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].lower()}".removeprefix(": ")
        raise _damaged(path, reason) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, first_line(error)) from error


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"the manifest of '{path}' is damaged: {reason}",
        where=str(path / MANIFEST),
        fix="copy the directory again from where it is whole, or make it again under another name",
    )


def verify(path: Path, manifest: Manifest, *, hashes: bool) -> list[str]:
    """Problems found when the files at ``path`` are compared with their manifest; empty when all is well.

    Args:
        path: the artifact.
        manifest: the artifact's manifest.
        hashes: compare contents too, not only presence and size.
    """
    problems = [
        problem
        for name, record in manifest.files.items()
        if (problem := compare_file(path / name, name, record, hashes=hashes))
    ]
    if not problems and fingerprint_of(manifest.files) != manifest.fingerprint:
        problems.append(f"{MANIFEST} was changed after it was written")
    return problems


def compare_file(file: Path, name: str, record: FileRecord, *, hashes: bool) -> str | None:
    """What is wrong with a file, None if it is as its record says.

    Args:
        file: the path of the file.
        name: what the message calls the file.
        record: the size and hash that the file should have.
        hashes: compare contents too.
    """
    try:
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != record.size:
            return f"{name} has {size} bytes, not {record.size}"
        if hashes and hash_file(file) != record.sha256:
            return f"{name} was changed after it was written"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return None
