"""Local files and folders: which files hold the rows, and how each is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord, fingerprint_of, hash_directory, hash_file
from data_registry.sources.base import Chunk, Source
from data_registry.sources.tables import arrow_chunks, choose_split, parquet_chunks
from data_registry.sources.text import csv_chunks, json_chunks

_READERS: Final[dict[str, Callable[[Path], Iterator[Chunk]]]] = {
    ".json": json_chunks,
    ".jsonl": json_chunks,
    ".ndjson": json_chunks,
    ".csv": csv_chunks,
    ".tsv": lambda path: csv_chunks(path, "\t"),
    ".parquet": parquet_chunks,
    ".arrow": arrow_chunks,
}
_TEXT: Final = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv"})
# What lies beside data in folders and repositories.
_NOT_DATA: Final = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_SPLITS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def kinds() -> str:
    """The kinds of file that can be read, for messages."""
    return f"{', '.join(_READERS)} (text also as .gz)"


def kind_of(path: Path) -> str | None:
    """The suffix that says how a file is read, without ``.gz``; None for other files."""
    suffix, inner = path.suffix.lower(), Path(path.stem).suffix.lower()
    if suffix == ".gz":
        return inner if inner in _TEXT else None if inner else ".json"
    return suffix if suffix in _READERS else None


class FileSource(Source):
    """One file, or the files of a folder in the order of their names.

    Args:
        path: a file or a folder.
        split: which of the splits to read that the file names of a folder tell.

    Raises:
        InputError: there is no data of a known kind.
        ConfigError: the folder has several splits and none, or another, was named.
    """

    def __init__(self, path: Path, split: str | None = None) -> None:
        self.name = str(path)
        self._root = path
        self._files = _data_files(path, split) if path.is_dir() else [path]
        for file in self._files:
            if kind_of(file) is None:
                raise InputError(f"'{file}' is of no kind that can be read", fix=f"kinds are: {kinds()}")

    def chunks(self) -> Iterator[Chunk]:
        """See the base class."""
        for file in self._files:
            kind = kind_of(file)
            assert kind is not None
            yield from _READERS[kind](file)

    def inputs(self) -> list[InputRecord]:
        """See the base class."""
        try:
            if self._root.is_dir():
                fingerprint, kind = fingerprint_of(hash_directory(self._root, self._files)), "folder"
            else:
                fingerprint, kind = hash_file(self._root), "file"
        except OSError as error:
            raise InputError(f"cannot read '{error.filename or self._root}': {error.strerror or error}") from error
        return [InputRecord(role="source", path=os.path.abspath(self._root), kind=kind, fingerprint=fingerprint)]


def _data_files(folder: Path, split: str | None) -> list[Path]:
    try:
        files = sorted(file for file in folder.rglob("*") if file.is_file() and _is_data(file.relative_to(folder)))
    except OSError as error:
        raise InputError(f"cannot read '{folder}': {error.strerror or error}") from error
    if not files:
        raise InputError(f"the folder '{folder}' holds no data", fix=f"kinds that can be read: {kinds()}")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of(file.relative_to(folder)), []).append(file)
    if split is None and len([name for name in by_split if name]) < 2:
        return files
    if split is not None:
        named = [file for file in files if any(part.startswith(split) for part in file.relative_to(folder).parts)]
        if named:
            return named
        split = _SPLITS.get(split, split)
    return by_split[choose_split(split, [name for name in by_split if name], str(folder))]


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.name not in _NOT_DATA and kind_of(path) is not None


def split_of(path: Path) -> str:
    """The split that a file's name, or a folder above it, tells; empty if none."""
    for part in reversed(path.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return ""
