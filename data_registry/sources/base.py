"""What a source is: rows in chunks, read lazily and as often as wanted, and the records of what was read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from data_registry.core.arrow_values import rows_of
from data_registry.core.errors import InputError
from data_registry.core.json_text import decode
from data_registry.core.manifest import InputRecord
from data_registry.core.shown import shown
from data_registry.core.unreadable import Unreadable

if TYPE_CHECKING:
    import pyarrow as pa

RawRow = dict[str, Any]
CHUNK_ROWS: Final = 1000
CHUNK_BYTES: Final = 1 << 20
CONVERT: Final = "if it is Latin-1 or Windows text, convert it:  iconv -f windows-1252 -t utf-8 FILE > NEW"
"""What to do about a text that is not UTF-8."""


@dataclass(frozen=True)
class Broken:
    """An entry of a file that is no row, and why."""

    detail: str
    text: str = ""


@dataclass(frozen=True)
class Chunk:
    """Consecutive entries of a source, as cheaply as they were to be had; a worker makes rows of them.

    Attributes:
        where: the file, or the source's name.
        numbers: the entries' line or row numbers, from 1.
        unit: what the numbers count, ``"line"`` or ``"row"``.
        payload: JSON lines still to be parsed, or an Arrow batch, or rows.
    """

    where: str
    numbers: Sequence[int]
    unit: str
    payload: list[bytes] | pa.RecordBatch | list[RawRow | Broken]

    def place(self, number: int) -> str:
        """Where the entry of this number lies, for people."""
        return f"{self.where}:{number}" if self.unit == "line" else f"{self.where}, row {number}"

    def entries(self) -> Iterator[tuple[int, RawRow | Broken]]:
        """The entries with their numbers; blank lines left out."""
        payload: Iterable[bytes | RawRow | Broken]
        payload = self.payload if isinstance(self.payload, list) else rows_of(self.payload)
        for number, entry in zip(self.numbers, payload, strict=True):
            if not isinstance(entry, bytes):
                yield number, entry
            elif entry.strip():
                yield number, _parse(entry)


def _parse(line: bytes) -> RawRow | Broken:
    try:
        value = decode(line)
    except ValueError as error:
        advice = f"; {CONVERT}" if isinstance(error.__cause__, UnicodeDecodeError) else ""
        return Broken(f"the line is {error}{advice}", line.decode("utf-8", "backslashreplace"))
    return as_entry(value)


def as_entry(value: object) -> RawRow | Broken:
    """A JSON value as a row, if it is an object."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Unreadable):
        return Broken(value.detail)
    return Broken(f"a {type(value).__name__} where an object is expected", shown(value))


def chunked(
    entries: Iterable[tuple[int, RawRow | Broken]], where: str, unit: str = "row", size: int = CHUNK_ROWS
) -> Iterator[Chunk]:
    """Numbered entries in chunks."""
    iterator = iter(entries)
    while batch := list(islice(iterator, size)):
        yield Chunk(where, [number for number, _ in batch], unit, [entry for _, entry in batch])


class Source(ABC):
    """Something that has rows.

    Attributes:
        name: what messages call the source.
        num_rows: how many rows there are, where that is known without reading them.
        layout_hint: the format that the source itself says its rows have, if it does.
        task_hint: the task that it says they are for, if it does.
    """

    name: str
    num_rows: int | None = None
    layout_hint: str | None = None
    task_hint: str | None = None

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """The rows from the beginning.

        Raises:
            InputError: the source cannot be read on; with the place.
        """

    @abstractmethod
    def inputs(self) -> list[InputRecord]:
        """Records of what is read, with fingerprints of its content.

        Raises:
            InputError: it cannot be read.
        """

    def sample(self, num_rows: int = 50, within: int = 10_000) -> list[RawRow]:
        """The first readable rows, of the first ``within`` entries; rows with an unreadable value only if all have one.

        Raises:
            InputError: there is none; with what the first entry is instead.
        """
        rows: list[RawRow] = []
        whole: list[RawRow] = []
        problem, seen = None, 0
        for chunk in self.chunks():
            for number, entry in chunk.entries():
                if isinstance(entry, dict):
                    rows.append(entry)
                    if not any(isinstance(value, Unreadable) for value in entry.values()):
                        whole.append(entry)
                elif problem is None:
                    problem = f"{chunk.place(number)}: {entry.detail}"
                seen += 1
                if len(rows) == num_rows:
                    return whole or rows
            if seen >= within:
                break
        if not rows:
            raise InputError(
                f"'{self.name}' has no readable row" if problem else f"'{self.name}' is empty", where=problem
            )
        return whole or rows
