"""Answers on disk as they are made: a shard for each batch while a run goes on, one Parquet file when it is done."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from data_registry.core.errors import ArtifactError
from pipelines.core.placing import place_file
from pipelines.evaluation.contract.answer import StoredAnswer

logger = logging.getLogger(__name__)

GENERATIONS_FILE = "generations.parquet"
_IDENTITY = b"ogpsa.identity"
_SETTINGS = b"ogpsa.settings"
_NUMBERS = ("num_prompt_tokens", "num_tokens")


class AnswerStore:
    """The shards of a run that is under way; several processes may add to it.

    Args:
        folder: the folder of the shards; made by rank zero.
        identity: hash of all that answers depend on beside the prompts. Shards of another are not used.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity

    def load(self) -> dict[tuple[str, str, str], StoredAnswer]:
        """The answers that were stored before, by key. A shard that is damaged counts as not there."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        found: dict[tuple[str, str, str], StoredAnswer] = {}
        for file in sorted(self._folder.glob("*.parquet")):
            try:
                table = parquet.read_table(file)
            except (OSError, pa.ArrowException) as error:
                logger.warning("%s is damaged, and its answers are made again: %s", file.name, error)
                continue
            if (table.schema.metadata or {}).get(_IDENTITY) == self._identity.encode():
                found.update((row.key, row) for row in (StoredAnswer(**values) for values in table.to_pylist()))
        return found

    def append(self, answers: Sequence[StoredAnswer]) -> None:
        """Store a batch: whole or not at all."""
        import pyarrow.parquet as parquet

        name = hashlib.sha256(repr([answer.key for answer in answers]).encode()).hexdigest()[:24]
        aside = self._folder / f".{name}-{os.getpid()}"
        parquet.write_table(_table(answers, {_IDENTITY: self._identity.encode()}), aside, compression="zstd")
        place_file(aside, self._folder / f"{name}.parquet")


def write_generations(folder: Path, answers: Sequence[StoredAnswer], settings: Mapping[str, Any]) -> None:
    """Write ``generations.parquet`` with the settings of its suites in the file's metadata."""
    import pyarrow.parquet as parquet

    metadata = {_SETTINGS: json.dumps(settings, sort_keys=True).encode()}
    parquet.write_table(_table(answers, metadata), folder / GENERATIONS_FILE, compression="zstd")


def read_generations(folder: Path) -> list[StoredAnswer]:
    """The answers of a finished evaluation, in order.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    return [StoredAnswer(**row) for row in _read(folder).to_pylist()]


def read_generation_settings(folder: Path) -> dict[str, Any]:
    """The settings that :func:`write_generations` was given.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    metadata = _read(folder).schema.metadata or {}
    found: dict[str, Any] = json.loads(metadata.get(_SETTINGS, b"{}"))
    return found


def _read(folder: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = folder / GENERATIONS_FILE
    try:
        stored = parquet.ParquetFile(file)
        present = set(stored.schema_arrow.names)
        # Earlier results have no contexts; whatever else is missing is an error.
        names = [field.name for field in fields(StoredAnswer) if field.name != "context" or field.name in present]
        if missing := [name for name in names if name not in present]:
            raise ValueError(f"it has no column {missing[0]}")
        return stored.read(columns=names)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"'{file}' cannot be read: {error}", where=str(file)) from error


def _table(answers: Iterable[StoredAnswer], metadata: Mapping[bytes, bytes]) -> Any:
    import pyarrow as pa

    schema = pa.schema(
        [(field.name, pa.int64() if field.name in _NUMBERS else pa.string()) for field in fields(StoredAnswer)],
        metadata=dict(metadata),
    )
    return pa.Table.from_pylist([asdict(answer) for answer in answers], schema)
