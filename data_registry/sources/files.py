"""Local files and folders: which files hold the rows, and how each is read."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord, fingerprint_of, hash_directory, hash_file
from data_registry.core.regular_files import Watch, check_regular
from data_registry.sources.base import Chunk, Source
from data_registry.sources.compressed import SUFFIXES, check_binary, check_text
from data_registry.sources.csv_text import csv_chunks, name_of_separator, separator_of
from data_registry.sources.folder import check_within, files_below
from data_registry.sources.splits import SPLITS, choose_split, split_of
from data_registry.sources.tables import arrow_chunks, parquet_chunks
from data_registry.sources.text import json_chunks
from data_registry.sources.unreadable_kinds import no_data, unknown_kind

logger = logging.getLogger(__name__)

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


def kinds() -> str:
    """The kinds of file that can be read, for messages."""
    return f"{', '.join(_READERS)} (text also as {', '.join(SUFFIXES)})"


def kind_of(path: Path) -> str | None:
    """The suffix that says how a file is read, without that of a compression; None for other files."""
    suffix, inner = path.suffix.lower(), Path(path.stem).suffix.lower()
    if suffix in SUFFIXES:
        return inner if inner in _TEXT else None if inner else ".json"
    return suffix if suffix in _READERS else None


def _check_head(file: Path, *, in_folder: bool) -> None:
    kind = kind_of(file)
    if kind in (".parquet", ".arrow"):
        check_binary(file, "Parquet" if kind == ".parquet" else "Arrow")
        return
    is_csv = kind in (".csv", ".tsv")
    if not check_text(file, "CSV" if is_csv else "JSON"):
        if in_folder:  # One file that is empty is an error, which says so.
            logger.warning("'%s' is empty", file)
    elif is_csv:
        usual = "\t" if kind == ".tsv" else ","
        separator, _ = separator_of(file, usual)
        if separator != usual:
            logger.warning("the columns of '%s' are separated by %s", file, name_of_separator(separator))


class Files(Source):
    """Some files below one folder, or one file, read one after another.

    The figures that come of the rows and the fingerprint are those of one and the same state of the files: whoever
    writes to one between the first of :meth:`inputs` and :meth:`chunks` and the last row makes reading fail.

    Args:
        root: the folder, or the file.
        files: the files, in the order in which they are read.
        whole_folder: the fingerprint is that of everything in the folder, not of these files alone.

    Raises:
        InputError: one is of no kind that can be read, is no regular file, or shows at its beginning that it is not
            what it is called.
    """

    def __init__(self, root: Path, files: Sequence[Path], *, whole_folder: bool = False) -> None:
        self.name = str(root)
        self._root, self._files, self._whole_folder = root, files, whole_folder
        self._watch: Watch | None = None
        for file in files:
            if kind_of(file) is None:
                raise unknown_kind(file, kinds())
            check_regular(file)
            _check_head(file, in_folder=len(files) > 1)

    def chunks(self) -> Iterator[Chunk]:
        """See the base class.

        Raises:
            ArtifactError: a file changed while it was read.
        """
        watch = self._watch or Watch(self._files)
        for file in self._files:
            kind = kind_of(file)
            assert kind is not None
            try:
                yield from _READERS[kind](file)
            except InputError:
                watch.check()
                raise
            watch.check()

    def inputs(self) -> list[InputRecord]:
        """See the base class."""
        self._watch = Watch(self._files)
        try:
            if self._root.is_dir():
                records = hash_directory(self._root, None if self._whole_folder else self._files)
                fingerprint, kind = fingerprint_of(records), "folder"
            else:
                fingerprint, kind = hash_file(self._root), "file"
        except OSError as error:
            raise InputError(f"cannot read '{error.filename or self._root}': {error.strerror or error}") from error
        return [InputRecord(role="source", path=os.path.abspath(self._root), kind=kind, fingerprint=fingerprint)]


class FileSource(Files):
    """One file, or the files of a folder in the order of their names.

    Args:
        path: a file or a folder.
        split: which of the splits to read that the file names of a folder tell.

    Raises:
        InputError: there is no data of a known kind, or a file leads out of the folder.
        ConfigError: the folder has several splits and none, or another, was named.
    """

    def __init__(self, path: Path, split: str | None = None) -> None:
        super().__init__(path, _data_files(path, split) if path.is_dir() else [path])


def _data_files(folder: Path, split: str | None) -> list[Path]:
    files = sorted(file for file in files_below(folder) if _is_data(file.relative_to(folder)))
    if not files:
        raise no_data(folder, files_below(folder), kinds())
    for file in files:
        check_regular(file)
        check_within(folder, file)
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of(file.relative_to(folder)), []).append(file)
    if split is None and len([name for name in by_split if name]) < 2:
        return files
    if split is not None:
        named = [file for file in files if any(part.startswith(split) for part in file.relative_to(folder).parts)]
        if named:
            return named
        split = SPLITS.get(split, split)
    return by_split[choose_split(split, [name for name in by_split if name], str(folder))]


def _is_data(path: Path) -> bool:
    return path.name not in _NOT_DATA and kind_of(path) is not None
