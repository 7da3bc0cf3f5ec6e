"""Binary tables: Parquet files, Arrow files, and folders that ``datasets.save_to_disk`` or ogpsa wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError, first_line
from data_registry.core.manifest import InputRecord, Manifest, as_input, fingerprint_of, hash_directory
from data_registry.prepared import load_prepared
from data_registry.sources.base import CHUNK_ROWS, Chunk, Source

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


def parquet_chunks(path: Path) -> Iterator[Chunk]:
    """Rows of a Parquet file, one batch at a time.

    Raises:
        InputError: it is damaged, or no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from numbered(file.iter_batches(batch_size=CHUNK_ROWS), str(path))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"the Parquet file is damaged: {first_line(error)}", where=str(path)) from error


def arrow_chunks(path: Path) -> Iterator[Chunk]:
    """Rows of an Arrow file in stream or file format, one batch at a time.

    Raises:
        InputError: it is damaged, or no Arrow file.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as mapped:
            as_file = mapped.read(6) == b"ARROW1"
            mapped.seek(0)
            reader = pa.ipc.open_file(mapped) if as_file else pa.ipc.open_stream(mapped)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches)) if as_file else reader
            yield from numbered(batches, str(path))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"the Arrow file is damaged: {first_line(error)}", where=str(path)) from error


def numbered(batches: Iterator[pa.RecordBatch], where: str) -> Iterator[Chunk]:
    """Arrow batches as chunks, their rows numbered from 1."""
    first = 1
    for batch in batches:
        for start in range(0, batch.num_rows, CHUNK_ROWS):
            part = batch.slice(start, CHUNK_ROWS)
            yield Chunk(where, range(first, first + part.num_rows), "row", part)
            first += part.num_rows


def dataset_batches(rows: datasets.Dataset) -> Iterator[pa.RecordBatch]:
    """The rows of a data set of the library, as Arrow batches."""
    for table in rows.with_format("arrow").iter(batch_size=CHUNK_ROWS):
        yield from table.combine_chunks().to_batches()


class SavedSource(Source):
    """A folder that ``datasets.save_to_disk`` wrote: a data set, or several splits of one.

    Raises:
        InputError: it cannot be read.
        ConfigError: it has splits and none, or another, was named.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        self.name = str(path)
        self._path = path
        import datasets
        import pyarrow as pa

        try:
            loaded = datasets.load_from_disk(str(path))
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise InputError(f"the Arrow folder is damaged: {first_line(error)}", where=str(path)) from error
        if isinstance(loaded, datasets.DatasetDict):
            split = choose_split(split, list(loaded), self.name)
            loaded = loaded[split]
            self._path = path / split
        elif split is not None:
            raise ConfigError(f"'{path}' has no splits, so that --source-split {split} cannot be read")
        self._rows = loaded
        self.num_rows = len(loaded)

    def chunks(self) -> Iterator[Chunk]:
        """See the base class."""
        yield from numbered(dataset_batches(self._rows), self.name)

    def inputs(self) -> list[InputRecord]:
        """See the base class."""
        fingerprint = fingerprint_of(hash_directory(self._path))
        return [InputRecord(role="source", path=os.path.abspath(self._path), kind="folder", fingerprint=fingerprint)]


class PreparedSource(Source):
    """A data set that ``prepare-data`` made, to be selected from once more.

    Raises:
        ArtifactError: it does not verify, or is an artifact of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._manifest: Manifest
        self._rows, self._manifest = load_prepared(path)
        self.num_rows = len(self._rows)
        self.task_hint = str(self._manifest.summary["task"])
        self.layout_hint = "messages" if self.task_hint == "sft" else "preference"

    def chunks(self) -> Iterator[Chunk]:
        """See the base class."""
        yield from numbered(dataset_batches(self._rows), self.name)

    def inputs(self) -> list[InputRecord]:
        """See the base class."""
        return [as_input("source", self._path, self._manifest)]


def choose_split(asked: str | None, splits: list[str], where: str) -> str:
    """The split asked for, or the only one there is.

    Raises:
        ConfigError: it is not there, or there are several to choose from.
    """
    if asked is None and len(splits) == 1:
        return splits[0]
    if asked is None:
        raise ConfigError(
            f"there are several splits: {', '.join(splits)}", where=where, fix="choose one with --source-split"
        )
    if asked not in splits:
        raise ConfigError(
            f"there is no split '{asked}'{suggest(asked, splits)}; there are: {', '.join(splits)}", where=where
        )
    return asked
