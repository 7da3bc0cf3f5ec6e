"""Whether files are still those that were there before: by inode, size and times, without reading them."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias


class FileState(NamedTuple):
    """What shows that a file was changed or replaced.

    Attributes:
        inode: the inode, which another file of the same name does not share.
        size: its size in bytes; 0 for directories.
        written_ns: when its content was last changed; for a directory, when something came into it or went.
        moved_ns: when it was last changed, or given another name or other rights.
        is_directory: whether it is a directory.
    """

    inode: int
    size: int
    written_ns: int
    moved_ns: int
    is_directory: bool


FileStates: TypeAlias = Mapping[str, FileState]
"""States by path."""


def states_of(paths: Iterable[Path]) -> FileStates:
    """What files and directories are now. Links are followed, and what is not there is left out.

    Watch also the directories that are replaced as a whole: where one was put in place of another and taken away again,
    its files are the former ones, and only the directory has been moved meanwhile.

    Args:
        paths: files, and directories without what is in them.
    """
    found = {}
    for path in paths:
        try:
            state = path.stat()
        except OSError:
            continue
        is_directory = stat.S_ISDIR(state.st_mode)
        size = 0 if is_directory else state.st_size
        found[str(path)] = FileState(state.st_ino, size, state.st_mtime_ns, state.st_ctime_ns, is_directory)
    return found


def first_changed(before: FileStates, now: FileStates) -> str | None:
    """The path of the first that was replaced, changed, moved, added or removed; None if all is as it was.

    What comes into a directory, or goes, is no change of it: others may write beside the files that are watched.
    """
    return next((path for path in sorted({**before, **now}) if _differ(before.get(path), now.get(path))), None)


def _differ(before: FileState | None, now: FileState | None) -> bool:
    if before is None or now is None or not before.is_directory:
        return before != now
    was_moved = before.moved_ns != now.moved_ns and before.written_ns == now.written_ns
    return before.inode != now.inode or was_moved
