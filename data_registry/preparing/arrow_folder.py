"""Writes a data set batch by batch in the layout of ``datasets.save_to_disk``, without ever holding it whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

_SHARD_BYTES: Final = 500 << 20


class _StreamFile:
    """An Arrow stream in a file that is closed in any case: of a stream that cannot be ended, pyarrow keeps it open."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow as pa

        self._file = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._file, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._stream.write_batch(batch)

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._file.close()


class ArrowFolder:
    """A folder of Arrow shards that ``datasets.load_from_disk`` opens.

    Args:
        path: an existing directory.
        schema: the schema that every batch has.
        description: the description written to ``dataset_info.json``.
        licence: the licence written there.
        citation: the citation written there.
        homepage: the home page written there.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        *,
        description: str = "",
        licence: str = "",
        citation: str = "",
        homepage: str = "",
    ) -> None:
        self.num_rows = 0
        self._path, self._schema = path, schema
        self._about = {"description": description, "license": licence, "citation": citation, "homepage": homepage}
        self._shards: list[Path] = []
        self._writer: _StreamFile | None = None
        self._shard_bytes = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> ArrowFolder:
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        if batch.num_rows == 0:
            return
        if self._writer is None or self._shard_bytes >= _SHARD_BYTES:
            self._next_shard()
        assert self._writer is not None
        self._writer.write(batch)
        self._shard_bytes += batch.nbytes
        self.num_rows += batch.num_rows

    def _next_shard(self) -> None:
        self._close_shard()
        self._shards.append(self._path / f"data-{len(self._shards):05d}.arrow")
        self._writer = _StreamFile(self._shards[-1], self._schema)
        self._shard_bytes = 0

    def _close_shard(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def finish(self) -> None:
        """Write the files that make the shards a data set."""
        import datasets

        if not self._shards:
            self._next_shard()
        self._close_shard()
        for shard in self._shards:
            with shard.open("rb") as stream:
                while data := stream.read(1 << 22):
                    self._digest.update(data)
        features = datasets.Features.from_arrow_schema(self._schema)
        datasets.DatasetInfo(features=features, **self._about).write_to_directory(str(self._path))
        state: dict[str, Any] = {
            "_data_files": [{"filename": shard.name} for shard in self._shards],
            "_fingerprint": self._digest.hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (self._path / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_shard()


class Staging:
    """Rows that may be drawn, on disk until it is known which are.

    Args:
        file: the file that keeps the rows meanwhile.
        schema: the schema that the rows have.
    """

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self._file = file
        self._writer = _StreamFile(file, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self._writer.write(batch)

    def select(self, numbers: list[int]) -> Iterator[pa.RecordBatch]:
        """The rows of these ascending numbers, counted from 0 in the order of writing; then the file is removed."""
        import pyarrow as pa

        self._writer.close()
        waiting, first = iter(numbers), 0
        number = next(waiting, None)
        with pa.memory_map(str(self._file)) as mapped:
            for batch in pa.ipc.open_stream(mapped):
                within = []
                while number is not None and number < first + batch.num_rows:
                    within.append(number - first)
                    number = next(waiting, None)
                first += batch.num_rows
                if within:
                    yield batch.take(pa.array(within))
        self._file.unlink()
