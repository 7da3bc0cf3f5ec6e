"""The bytes of a file, decompressed on the way whatever the file is called, and what its first bytes say that it is."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from data_registry.core.errors import InputError, first_line
from data_registry.core.regular_files import open_regular
from data_registry.sources.base import CHUNK_BYTES

if TYPE_CHECKING:
    from contextlib import ExitStack

SUFFIXES: Final = (".gz", ".bz2", ".xz", ".zst")
"""The suffixes of compressed files."""

_HEAD_BYTES: Final = 4096
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_COMPRESSIONS: Final = {_GZIP: "gzip", _BZIP2: "bzip2", _XZ: "xz", _ZSTD: "zstd"}
_OTHERS: Final = {
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\xff\xff\xff\xff": "Arrow",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7-Zip",
    b"\x89PNG": "PNG",
    b"%PDF": "PDF",
    b"\x89HDF": "HDF5",
    b"SQLite format 3": "SQLite",
}
_LONGEST: Final = 1 << 24


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed if it is gzip, bzip2, xz or zstd, whatever it is called.

    Raises:
        InputError: it is no regular file, it cannot be opened, or what is read within is damaged; with the file.
    """
    compression = "compressed"
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(open_regular(path))
            head = raw.read(8)
            raw.seek(0)
            compression = next((name for magic, name in _COMPRESSIONS.items() if head.startswith(magic)), "")
            yield _decompressed(raw, compression, stack) if compression else raw
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise InputError(
            f"the {compression} file is damaged or cut off: {first_line(error)}", where=str(path)
        ) from error
    except OSError as error:
        if compression and error.errno is None:  # as bz2 and pyarrow say that it is damaged
            what = f"the {compression} file is damaged or cut off: {first_line(error)}"
            raise InputError(what, where=str(path)) from error
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from error


def _decompressed(raw: BinaryIO, compression: str, stack: ExitStack) -> BinaryIO:
    if compression == "zstd":
        import pyarrow as pa

        stream = stack.enter_context(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"))
        return cast("BinaryIO", io.BufferedReader(stream, CHUNK_BYTES))
    if compression == "gzip":
        return cast("BinaryIO", stack.enter_context(gzip.GzipFile(fileobj=raw)))
    return cast("BinaryIO", stack.enter_context(bz2.BZ2File(raw) if compression == "bzip2" else lzma.LZMAFile(raw)))


def check_text(path: Path, called: str) -> bool:
    """Refuse a file whose beginning shows that it is no text in UTF-8.

    Args:
        path: the file.
        called: what its name says that it is, such as ``"JSON"``.

    Returns:
        whether there is anything in it but white space.

    Raises:
        InputError: it is something else, or cannot be read; the error says what it is instead.
    """
    with open_bytes(path) as stream:
        head = stream.read(_HEAD_BYTES)
        _refuse_pointer(path, head)
        for magic, name in (_OTHERS | _COMPRESSIONS).items():
            if head.startswith(magic):
                again = " within a compressed file" if name in _COMPRESSIONS.values() else ""
                packed = name in ("zip", "7-Zip") or again
                fix = "unpack it, and give the file within" if packed else "rename it to what it is"
                raise InputError(f"'{path}' is called {called} but is {name}{again}", fix=fix)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\x00" in head:
            encoding = _encoding(head)
            what = f"text in {encoding.upper()}" if encoding else "no text, since it holds NUL characters"
            advice = f"convert it:  iconv -f {encoding} -t utf-8 '{path}' > NEW" if encoding else None
            raise InputError(f"'{path}' is not UTF-8 text: it is {what}", fix=advice)
        head = head.removeprefix(codecs.BOM_UTF8)
        while head and not head.strip():
            head = stream.read(CHUNK_BYTES)
        return bool(head)


def _encoding(head: bytes) -> str:
    """The encoding of a text that is not UTF-8, by its mark or the places of NUL bytes; empty where it is no text."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[::2].count(0), head[1::2].count(0)
    for nuls, others, name in ((odd, even, "utf-16le"), (even, odd, "utf-16be")):
        # Of a text in English every second byte is NUL, and no other is.
        if 4 * nuls > len(head) and not others:
            return name
    return ""


def check_binary(path: Path, called: str) -> None:
    """Refuse a file that does not begin, and for Parquet end, as its name says.

    Args:
        path: the file.
        called: ``"Parquet"`` or ``"Arrow"``.

    Raises:
        InputError: it is something else, or cannot be read.
    """
    try:
        with open_regular(path) as stream:
            head = stream.read(_HEAD_BYTES)
            stream.seek(-min(4, stream.seek(0, io.SEEK_END)), io.SEEK_CUR)
            tail = stream.read(4)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from error
    _refuse_pointer(path, head)
    if called == "Parquet":
        is_one = head.startswith(b"PAR1") and tail == b"PAR1" and len(head) > 8
    else:
        # Before version 0.15 a stream began with the length of its first message.
        is_one = head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or 0 < int.from_bytes(head[:4], "little") < _LONGEST
    if not is_one:
        found = next((name for magic, name in (_OTHERS | _COMPRESSIONS).items() if head.startswith(magic)), None)
        what = (
            "it is empty"
            if not head
            else f"it is {found}"
            if found not in (None, called)
            else "it is cut off, or no such file"
        )
        raise InputError(f"the {called} file is damaged: {what}", where=str(path))


def _refuse_pointer(path: Path, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        raise InputError(
            f"'{path}' is a pointer of Git LFS, not the data that it points to", fix="fetch them:  git lfs pull"
        )
