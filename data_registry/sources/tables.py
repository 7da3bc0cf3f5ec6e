"""Binary tables: Parquet files and Arrow files, checked before a row is taken out of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core.arrow_values import DAMAGE, checked
from data_registry.core.errors import InputError, first_line
from data_registry.sources.base import CHUNK_ROWS, Chunk
from data_registry.sources.compressed import check_binary

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


def parquet_chunks(path: Path) -> Iterator[Chunk]:
    """Rows of a Parquet file, one batch at a time.

    Raises:
        InputError: it is damaged, or no Parquet file.
    """
    yield from numbered(_parquet_batches(path), str(path), "Parquet file")


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    check_binary(path, "Parquet")
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield from file.iter_batches(batch_size=CHUNK_ROWS)


def arrow_chunks(path: Path) -> Iterator[Chunk]:
    """Rows of an Arrow file in stream or file format, one batch at a time.

    The file is read, not mapped into memory: a mapped file that is cut off meanwhile ends the process by a signal.

    Raises:
        InputError: it is damaged, or no Arrow file.
    """
    yield from numbered(_arrow_batches(path), str(path), "Arrow file")


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    check_binary(path, "Arrow")
    with pa.OSFile(str(path)) as stream:
        as_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if not as_file:
            yield from pa.ipc.open_stream(stream)
            return
        reader = pa.ipc.open_file(stream)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)


def numbered(batches: Iterable[pa.RecordBatch], where: str, what: str = "table") -> Iterator[Chunk]:
    """Arrow batches as chunks, their rows numbered from 1; each is checked before its rows are given on.

    Args:
        batches: the batches, read as they are asked for.
        where: the file, or the source's name.
        what: what messages call it.

    Raises:
        InputError: it is damaged; with the row up to which it is whole.
    """
    import pyarrow as pa

    first = 1
    try:
        for batch in checked(batches):
            for start in range(0, batch.num_rows, CHUNK_ROWS):
                part = batch.slice(start, CHUNK_ROWS)
                yield Chunk(where, range(first, first + part.num_rows), "row", part)
                first += part.num_rows
    except (pa.ArrowException, MemoryError, *DAMAGE) as error:
        place = where if first == 1 else f"{where}, after row {first - 1}"
        said = "it asks for more memory than there is" if isinstance(error, MemoryError) else first_line(error)
        raise InputError(f"the {what} is damaged: {said}", where=place) from error


def dataset_batches(rows: datasets.Dataset) -> Iterator[pa.RecordBatch]:
    """The rows of a data set of the library, as Arrow batches."""
    for table in rows.with_format("arrow").iter(batch_size=CHUNK_ROWS):
        yield from table.combine_chunks().to_batches()
