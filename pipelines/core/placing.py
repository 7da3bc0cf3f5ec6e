"""Putting finished directories and files in their place: a reader finds the old or the new one, always whole."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from pathlib import Path

from data_registry.core.manifest import MANIFEST
from pipelines.core.aside import all_aside, aside_of

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def put_in_place(finished: Path, target: Path, *, replace: bool) -> None:
    """Rename a directory to where it belongs, and remove what it replaces.

    Args:
        finished: the directory, written and synced, on the file system of ``target``.
        target: its final path, no link, where there is nothing, an empty directory, or with ``replace`` the one to be
            replaced.
        replace: whether there is a directory to replace. The two change places in one step where the file system can do
            that; where it cannot, a process killed between two renames leaves the old one whole beside the target, as
            ``.NAME.replaced-PID``.

    Raises:
        OSError: it cannot be done; what lay at the target still lies there.
    """
    if replace:
        _replace(finished, target)
    else:
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        os.rename(finished, target)
    sync_directory(target.parent)
    # This also removes what a process that was killed at this point left behind.
    for replaced in all_aside(target, "replaced"):
        discard(replaced)


def _replace(finished: Path, target: Path) -> None:
    aside = aside_of(target, "replaced", str(os.getpid()))
    if exchange(finished, target):
        os.rename(finished, aside)
        return
    os.rename(target, aside)
    try:
        os.rename(finished, target)
    except OSError:
        os.rename(aside, target)
        raise


def exchange(one: Path, other: Path) -> bool:
    """Let two directories change places in one step; returns whether the system and the file system can do that."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    code = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return int(code) == 0


def discard(directory: Path) -> None:
    """Remove an artifact, its manifest first, so that a half removed one is not taken for one. Errors are ignored.

    Of a link, the link alone is removed, and nothing of what it leads to.
    """
    if directory.is_symlink():
        with contextlib.suppress(OSError):
            directory.unlink()
        return
    with contextlib.suppress(OSError):
        (directory / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def write_text_durably(path: Path, text: str) -> None:
    """Write a file aside, sync it and rename it into place."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text, encoding="utf-8")
    place_file(aside, path)


def place_file(written: Path, path: Path) -> None:
    """Sync a file and rename it to where it belongs, over what lies there.

    Args:
        written: the file, written aside in the directory of ``path``.
        path: its final path.
    """
    sync_file(written)
    os.replace(written, path)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Make the contents of a file durable."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems do not sync directories, and need not be told to.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
