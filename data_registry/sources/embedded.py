"""The embedded testbed's pools as a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from data_registry.core.documents import suggest
from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord
from data_registry.sources.base import Chunk, Source, chunked
from data_registry.testbed.pools import POOLS, rows


class EmbeddedSource(Source):
    """A pool of the testbed, generated row by row.

    Raises:
        InputError: there is no such pool.
    """

    def __init__(self, pool: str) -> None:
        if pool not in POOLS:
            raise InputError(f"the testbed has no pool '{pool}'{suggest(pool, list(POOLS))}")
        self.name = f"testbed {pool}"
        self._pool = pool
        self.num_rows = POOLS[pool].size
        self.task_hint = POOLS[pool].task
        self.layout_hint = "messages" if self.task_hint == "sft" else "preference"

    def chunks(self) -> Iterator[Chunk]:
        """See the base class."""
        yield from chunked(((number, dict(row)) for number, row in enumerate(rows(self._pool), start=1)), self.name)

    def inputs(self) -> list[InputRecord]:
        """See the base class. The generator's first rows stand for all of them: a change of it changes these."""
        digest = hashlib.sha256()
        for row in rows(self._pool, num_samples=min(200, POOLS[self._pool].size)):
            digest.update(json.dumps(row, sort_keys=True).encode())
        return [InputRecord(role="source", path=self.name, kind="embedded", fingerprint=digest.hexdigest())]
