"""Rows of a chunk in normal form, with every row that is not used accounted for; what a worker process does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from data_registry.core.shown import clipped, shown
from data_registry.core.unreadable import Unreadable
from data_registry.formats.columns import ColumnCheck, without
from data_registry.formats.layout import Layout, columns_of, extra_of
from data_registry.formats.registry import read_row
from data_registry.schema import (
    DUPLICATE,
    FILTERED,
    REASONS,
    UNREADABLE,
    RejectedRow,
    Row,
    Task,
    arrow_schema,
    content_hash,
    split_share,
    with_system,
)
from data_registry.sources.base import Broken, Chunk, RawRow

if TYPE_CHECKING:
    import pyarrow as pa

Part = Literal["all", "train", "heldout"]
_EXCERPT_CHARACTERS: Final = 400
_EXCERPT_DEPTH: Final = 8


@dataclass(frozen=True)
class Rejection:
    """A row that is not used.

    Attributes:
        place: file and line, or source and row.
        number: the number of the line or row in its source.
        reason: a key of ``schema.REASONS``.
        detail: what was found in the row, for the reader of the rejected rows.
        excerpt: the row, long texts cut in the middle.
    """

    place: str
    number: int
    reason: str
    detail: str
    excerpt: Any


@dataclass
class Outcome:
    """What became of a chunk.

    Attributes:
        rows: an Arrow batch in normal form.
        hashes: a hash of each row's content.
        numbers: each row's number in its source.
        chunk: name and unit of the chunk, to say where a row lies; without its payload.
        num_read: entries looked at.
        rejected: those not used, but for filtered ones.
        counts: rows set aside without being rejected, ``filtered`` and ``other_split``, and what the check counted.
        unused: columns, and keys of messages as ``messages.KEY``, that no one uses, with the number of rows that have
            a value there.
        ignored: names that were to be ignored and are there.
    """

    rows: pa.RecordBatch
    hashes: list[bytes]
    numbers: list[int]
    chunk: Chunk
    num_read: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    ignored: set[str] = field(default_factory=set)

    def duplicate(self, number: int, row: Row) -> Rejection:
        """The record of one of the rows that turns out to have come before."""
        return reject(self.chunk, number, RejectedRow(DUPLICATE, REASONS[DUPLICATE]), row)


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of a chunk; picklable.

    Attributes:
        layout: how the rows are laid out.
        task: what the rows are made into.
        where: values that columns must have for a row to be wanted.
        system: message to put before every conversation.
        part: all rows, or the training or held-out part of them.
        heldout_fraction: share of the held-out part.
        check: looks at a row in normal form, returns what to count of it, and raises ``RejectedRow`` if it cannot be
            used.
        ignore: columns and keys of messages that may be lost.
    """

    layout: Layout
    task: Task
    where: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    part: Part = "all"
    heldout_fraction: float = 0.1
    check: Callable[[Row], Mapping[str, int]] | None = None
    ignore: tuple[str, ...] = ()

    def __call__(self, chunk: Chunk) -> Outcome:
        """The chunk's rows, in order."""
        import pyarrow as pa

        rows: list[Row] = []
        hashes: list[bytes] = []
        numbers: list[int] = []
        rejected: list[Rejection] = []
        counts: Counter[str] = Counter()
        unused: Counter[str] = Counter()
        num_read = 0
        for number, entry in chunk.entries():
            num_read += 1
            try:
                row = self._read(entry, unused)
                if not self._is_in_part(row):
                    counts["other_split"] += 1
                    continue
                digest = content_hash(row)
                if self.check is not None:
                    counts.update(self.check(row))
            except RejectedRow as outcome:
                if outcome.reason == FILTERED:
                    counts[FILTERED] += 1
                else:
                    rejected.append(reject(chunk, number, outcome, entry))
            else:
                rows.append(row)
                hashes.append(digest)
                numbers.append(number)
        batch = pa.RecordBatch.from_pylist(rows, schema=arrow_schema(self.task, extra_of(self._layout, self.task)))
        origin = Chunk(chunk.where, (), chunk.unit, [])
        seen = set(self._columns.seen)
        return Outcome(batch, hashes, numbers, origin, num_read, rejected, counts, unused, seen)

    @cached_property
    def _columns(self) -> ColumnCheck:
        return ColumnCheck(self._layout, self.task, chosen_by=self.where, ignored=self.ignore)

    @cached_property
    def _layout(self) -> Layout:
        return without(self.layout, self.ignore)

    def _read(self, entry: RawRow | Broken, unused: Counter[str]) -> Row:
        if isinstance(entry, Broken):
            raise RejectedRow(UNREADABLE, entry.detail)
        for column, wanted in self.where.items():
            if column not in entry:
                raise RejectedRow(UNREADABLE, f"there is no column '{column}' to filter by")
            if str(entry[column]).lower() != wanted.lower():
                raise RejectedRow(FILTERED, f"'{column}' is {shown(entry[column])}")
        columns = columns_of(entry, self._layout.columns)
        for column in columns.values():
            if isinstance(entry[column], Unreadable):
                raise RejectedRow(UNREADABLE, f"'{column}' is {entry[column].detail}")
        unused.update(self._columns(entry, columns))
        row = read_row(entry, self._layout, self.task, columns)
        return row if self.system is None else with_system(row, self.system)

    def _is_in_part(self, row: Row) -> bool:
        if self.part == "all":
            return True
        return (split_share(row) < self.heldout_fraction) == (self.part == "heldout")


def reject(chunk: Chunk, number: int, outcome: RejectedRow, entry: object) -> Rejection:
    """The record of a row that is not used."""
    content = entry.text if isinstance(entry, Broken) else entry
    return Rejection(chunk.place(number), number, outcome.reason, outcome.detail, excerpt(content))


def excerpt(value: Any, depth: int = _EXCERPT_DEPTH) -> Any:
    """A value as JSON can hold it: long texts cut in the middle, long lists after some elements, deep values shown."""
    if isinstance(value, str):
        return clipped(value, _EXCERPT_CHARACTERS).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict | list | tuple) and not depth:
        return excerpt(shown(value))
    if isinstance(value, dict):
        return {excerpt(str(key)): excerpt(part, depth - 1) for key, part in list(value.items())[:20]}
    if isinstance(value, list | tuple):
        return [excerpt(part, depth - 1) for part in value[:10]]
    if value is None or isinstance(value, bool | int | float):
        return value
    return excerpt(str(value))
