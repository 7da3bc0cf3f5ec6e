"""Files that come from elsewhere: only regular ones are opened, which end and can be read twice."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from data_registry.core.errors import ArtifactError, InputError

_SPECIAL: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def special(path: Path) -> str | None:
    """What lies at a path instead of a regular file, such as ``"a named pipe"``; None for a regular file, or nothing.

    Links are followed.
    """
    try:
        return _SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def check_regular(path: Path, needed: str = "a file that can be read twice") -> None:
    """Refuse what has no end or cannot be read twice.

    Args:
        path: the path; links are followed.
        needed: what is needed instead, for the error.

    Raises:
        InputError: it is a pipe, a socket, a device or a directory.
    """
    found = special(path)
    if found is not None:
        _refuse(path, found, needed)


def _refuse(path: Path, found: str, needed: str) -> None:
    if found == _SPECIAL[stat.S_IFIFO]:
        # Who waits for a reader of the pipe would wait for ever.
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    reached = f", a link to '{os.path.realpath(path)}'," if path.is_symlink() else ""
    raise InputError(
        f"'{path}'{reached} is {found}, where {needed} is needed",
        fix=None if found == _SPECIAL[stat.S_IFDIR] else "write its content to a file first, and name that",
    )


def open_regular(path: Path, needed: str = "a file that can be read twice") -> BinaryIO:
    """A regular file, opened to be read.

    Args:
        path: the path; links are followed.
        needed: what is needed, for the error.

    Raises:
        InputError: it is a pipe, a socket, a device or a directory.
        OSError: it cannot be opened.
    """
    check_regular(path, needed)
    # If a pipe was put in its place since, this does not wait for a writer.
    stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    found = _SPECIAL.get(stat.S_IFMT(os.fstat(stream.fileno()).st_mode))
    if found is not None:
        stream.close()
        _refuse(path, found, needed)
    return stream


@dataclass(frozen=True)
class _State:
    inode: tuple[int, int]
    size: int
    modified_ns: int


def _state(path: Path) -> _State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _State((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns)


class Watch:
    """Notices whether files change between two looks at them, which belong together.

    Args:
        files: the files, as they are now.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._states = {file: _state(file) for file in files}

    def check(self) -> None:
        """Fail if a file is not the one that it was.

        Raises:
            ArtifactError: one was written to, replaced or removed.
        """
        for file, before in self._states.items():
            now = _state(file)
            if now != before:
                what = "is gone" if now is None else "has changed"
                raise ArtifactError(
                    f"'{file}' {what} since this command began to read it: what was read is of no one file",
                    fix="wait until nothing writes to it, and run the command again",
                )
