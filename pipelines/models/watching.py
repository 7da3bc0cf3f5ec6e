"""Whether files are still those that were there before: by inode, size and time, without reading them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

FileStates: TypeAlias = Mapping[str, tuple[int, int, int]]
"""Inode, size in bytes and time of the last change in nanoseconds, by path."""


def states_of(files: Iterable[Path]) -> FileStates:
    """What the files are now. Links are followed, and files that are not there are left out."""
    found = {}
    for file in files:
        try:
            state = file.stat()
        except OSError:
            continue
        found[str(file)] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return found


def first_changed(before: FileStates, now: FileStates) -> str | None:
    """The path of the first file that was replaced, changed, added or removed; None if all is as it was."""
    return next((path for path in sorted({**before, **now}) if before.get(path) != now.get(path)), None)
