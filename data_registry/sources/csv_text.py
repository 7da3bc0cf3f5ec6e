"""CSV files, plain or compressed, read as a stream; columns may be separated by something else than a comma."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from data_registry.core.errors import InputError
from data_registry.sources.base import CONVERT, Broken, Chunk, RawRow, chunked
from data_registry.sources.compressed import check_text, open_bytes

_MAX_ROW_BYTES: Final = 1 << 28
_MAX_FIELD_CHARACTERS: Final = 1 << 26
_SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# How the spreadsheet of Microsoft says what separates columns, in a line before the header.
_SAID: Final = re.compile(r"\"?sep=(.)\"?")


def separator_of(path: Path, usual: str = ",") -> tuple[str, bool]:
    """What separates the columns of a CSV file: what its name says, unless its header has none but has another.

    Returns:
        the character, and whether the first line does nothing but name it.
    """
    with open_bytes(path) as stream:
        first = stream.readline(_MAX_ROW_BYTES).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").strip("\r\n")
    said = _SAID.fullmatch(first)
    if said is not None:
        return said[1], True
    if usual in first:
        return usual, False
    return max(_SEPARATORS, key=lambda each: (first.count(each), each == usual)), False


def name_of_separator(separator: str) -> str:
    """What people call what separates columns."""
    return _SEPARATORS.get(separator, f"'{separator}'")


def csv_chunks(path: Path, delimiter: str = ",") -> Iterator[Chunk]:
    """Rows of a CSV file with a header line; all values are text.

    Raises:
        InputError: there is no usable header, quoting is broken, or it is not UTF-8 text.
    """
    if check_text(path, "CSV"):
        separator, said = separator_of(path, delimiter)
        with open_bytes(path) as stream:
            if said:
                stream.readline(_MAX_ROW_BYTES)
            yield from chunked(_csv_entries(stream, path, separator, int(said)), str(path), "line")


class _CsvLines:
    """The lines of a text; none, and no row over several of them, is longer than a row can be."""

    def __init__(self, text: io.TextIOWrapper, path: Path) -> None:
        self._text, self._path = text, path
        self._number, self._taken = 0, 0

    def begin_row(self) -> None:
        self._taken = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(_MAX_ROW_BYTES):
            self._number += 1
            self._taken += len(line)
            if self._taken >= _MAX_ROW_BYTES:
                raise InputError(
                    f"a row is longer than {_MAX_ROW_BYTES >> 20} MB: is a quote not closed?",
                    where=f"{self._path}:{self._number}",
                )
            yield line


def _csv_entries(
    stream: BinaryIO, path: Path, delimiter: str, num_before: int
) -> Iterator[tuple[int, RawRow | Broken]]:
    lines = _CsvLines(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), path)
    # The limit belongs to the process; the default of 131,072 characters is less than a long answer has.
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1 + num_before
    try:
        found = next(reader, None)
        if found is None:
            return
        header = [name.strip(" \t\r\n\u00a0\ufeff") for name in found]
        _check_header(header, f"{path}:{line}")
        while True:
            line = reader.line_num + 1 + num_before
            lines.begin_row()
            values = next(reader, None)
            if values is None:
                return
            if len(values) != len(header):
                if values:
                    detail = f"{len(values)} fields where the header has {len(header)}"
                    yield line, Broken(detail, delimiter.join(values))
            elif any("\x00" in value for value in values):
                yield line, Broken("the row holds a NUL character, which text does not have", delimiter.join(values))
            else:
                yield line, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise InputError(f"the CSV is damaged: {error}", where=f"{path}:{line}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the CSV is not UTF-8 text: {error.reason}", where=f"{path}:{line}", fix=CONVERT) from error


def _check_header(header: list[str], where: str) -> None:
    """Refuse a header that does not tell its columns apart. One without a name is the index that pandas writes.

    Raises:
        InputError: a name appears twice, or several columns have none.
    """
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice and not twice[0]:
        places = ", ".join(str(place) for place, name in enumerate(header[:100], start=1) if not name)
        raise InputError(
            f"{header.count('')} columns have no name in the header: {places}",
            where=where,
            fix="name them, or take them out where nothing stands in them (a line may end with separators too many)",
        )
    if twice:
        raise InputError(
            f"the header names the column '{twice[0]}' twice", where=where, fix="rename one of them, or take it out"
        )
