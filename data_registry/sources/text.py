"""JSON files: lines, arrays, values one after another; plain or compressed; read as a stream, whatever their size."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from data_registry.core.errors import InputError, first_line
from data_registry.core.json_text import decode, decode_at, what_is_wrong
from data_registry.sources.base import CHUNK_BYTES, CHUNK_ROWS, CONVERT, Broken, Chunk, RawRow, as_entry, chunked
from data_registry.sources.compressed import check_text, open_bytes

_MAX_ROW_BYTES: Final = 1 << 28
_SPACE: Final = re.compile(r"\s*")
# A literal or an escape that the end of the buffer cuts is reported at its beginning, so far before the end at most.
_LONGEST_CUT: Final = 12
_COMMENT: Final = "a comment stands here, which JSON does not have: take it out"


def json_chunks(path: Path) -> Iterator[Chunk]:
    """Rows of a JSON file: one object a line, or an array of objects, or objects one after another.

    Lines are left for workers to parse. An array is parsed here, element by element: no more than one megabyte, or one
    row, is held at a time.

    Raises:
        InputError: the file is no text, an array is damaged (lines that are, are given on as broken rows).
    """
    kind = _json_kind(path)
    if kind == "lines":
        yield from _line_chunks(path)
    elif kind == "values":
        with open_bytes(path) as stream:
            yield from chunked(_JsonValues(stream, path).entries(), str(path))


def _json_kind(path: Path) -> str:
    if not check_text(path, "JSON"):
        return "empty"
    with open_bytes(path) as stream:
        first = b""
        while not first and (line := stream.readline(_MAX_ROW_BYTES)):
            first = line.removeprefix(codecs.BOM_UTF8).strip()
    if first.startswith(b"["):
        return "values"
    try:
        decode(first)
    except ValueError:
        # An object over several lines, or a first line that is broken like any other may be.
        return "values" if first == b"{" else "lines"
    return "lines"


def _line_chunks(path: Path) -> Iterator[Chunk]:
    with open_bytes(path) as stream:
        lines: list[bytes] = []
        first, size = 1, 0
        while line := stream.readline(_MAX_ROW_BYTES):
            if len(line) == _MAX_ROW_BYTES:
                raise InputError(
                    f"a line is longer than {_MAX_ROW_BYTES >> 20} MB: this is not one row a line",
                    where=f"{path}:{first + len(lines)}",
                )
            lines.append(line)
            size += len(line)
            if len(lines) == CHUNK_ROWS or size >= CHUNK_BYTES:
                yield Chunk(str(path), range(first, first + len(lines)), "line", lines)
                first, lines, size = first + len(lines), [], 0
        if lines:
            yield Chunk(str(path), range(first, first + len(lines)), "line", lines)


class _JsonValues:
    """The elements of a JSON array, or JSON values one after another, parsed from a stream."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._buffer, self._position, self._line, self._ended = "", 0, 1, False
        self._number = 0

    def entries(self) -> Iterator[tuple[int, RawRow | Broken]]:
        """Rows with their numbers from 1."""
        in_array = self._peek() == "["
        if in_array:
            self._position += 1
        while (character := self._peek()) != ("]" if in_array else ""):
            if in_array and self._number:
                if character != ",":
                    missing = "a comma or the end of the array is missing" if character else _cut_off(self._number)
                    raise self._error(_COMMENT if character in ("/", "#") else missing)
                self._position += 1
                if self._peek() == "]":
                    raise self._error("a comma stands before the end of the array: take it out")
            self._number += 1
            yield self._number, as_entry(self._value())
        if in_array:
            self._position += 1
            if self._peek():
                raise self._error("there is more text after the end of the array")

    def _value(self) -> Any:
        self._peek()
        size = CHUNK_BYTES
        while True:
            try:
                value, end = decode_at(self._buffer, self._position)
            except json.JSONDecodeError as error:
                at_end = error.pos >= len(self._buffer) - _LONGEST_CUT or error.msg.startswith("Unterminated")
                if self._ended or not at_end:
                    said = what_is_wrong(error)
                    cut = at_end and said == first_line(error)
                    raise self._error(_cut_off(self._number - 1) if cut else said, error.pos) from error
            except RecursionError as error:
                raise self._error("values are nested too deeply") from error
            else:
                if end < len(self._buffer) or self._ended:
                    self._position = end
                    return value
            if len(self._buffer) - self._position > _MAX_ROW_BYTES:
                raise self._error(f"a row is longer than {_MAX_ROW_BYTES >> 20} MB: is a quote not closed?")
            self._fill(size)
            size *= 2  # so that a row of many megabytes is not parsed once for each of them

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._position)
            assert match is not None
            self._position = match.end()
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if self._ended:
                return ""
            self._fill(CHUNK_BYTES)

    def _fill(self, size: int) -> None:
        data = self._stream.read(size)
        self._ended = not data
        self._line += self._buffer.count("\n", 0, self._position)
        try:
            self._buffer = self._buffer[self._position :] + self._decode.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 text: {error.reason}", fix=CONVERT) from error
        self._position = 0

    def _error(self, what: str, position: int | None = None, fix: str | None = None) -> InputError:
        end = self._position if position is None else position
        line = self._line + self._buffer.count("\n", 0, end)
        return InputError(f"the JSON is damaged: {what}", where=f"{self._path}:{line}", fix=fix)


def _cut_off(num_whole: int) -> str:
    return f"the file ends in the middle, after {num_whole} whole rows: is it cut off?"
