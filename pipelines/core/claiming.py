"""The directory in which an artifact is made, for one process alone, and no second command for the same place."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from data_registry.core.errors import InputError
from pipelines.core.aside import all_aside
from pipelines.core.place import check_link, check_place, place_of

# How long one attempt waits for another process that makes the same artifact. Who has the artifact made asks again.
PATIENCE_S = 10.0
# The workers of a run that was killed hold its lock until they notice; then another command may have the place.
OTHERS_PATIENCE_S = 2.0
_POLL_S = 0.1


class Busy(InputError):  # noqa: N818 - that another process is quicker is no error
    """Another process makes the same artifact at this moment (exit code 2)."""


def claim(target: Path, partial: Path) -> int:
    """Make the directory ``partial`` for this process alone, and try whether it can be put in place later.

    Args:
        target: where the artifact is to lie, as the user named it.
        partial: the directory aside of it in which it is made.

    Returns:
        The descriptor that holds the lock on ``partial``; closing it gives the lock back.

    Raises:
        Busy: another process makes the same artifact, and has done so for some seconds.
        InputError: nothing can be written or put there, or another command is making something in the same place.
        ArtifactError: something that is no artifact lies there.
    """
    place = place_of(target)
    check_link(target)
    made = _first_missing(partial.parent)
    try:
        lock = _lock_of(target, place, partial, made)
        try:
            check_place(target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.rmdir()
            os.close(lock)
            raise
    except BaseException:
        _remove_parents(partial.parent, made)
        raise
    return lock


def _lock_of(target: Path, place: Path, partial: Path, made: Path | None) -> int:
    began = time.monotonic()
    while True:
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            with directory_locked(partial.parent):
                held = [other for other in all_aside(place, "partial") if other != partial and is_held(other)]
                lock = None if held else _try_lock(partial)
        except OSError as error:
            raise _cannot_write(target, place, error) from error
        if lock is not None:
            return lock
        waited = time.monotonic() - began
        if held and waited > OTHERS_PATIENCE_S:
            raise InputError(
                f"another command is making '{target}' at this moment, with other settings",
                where=str(held[0]),
                fix="wait for it, stop it, or choose another --out",
            )
        if waited > PATIENCE_S:
            raise Busy(
                f"another process is making '{target}' at this moment",
                where=str(partial),
                fix="wait for it, or stop it",
            )
        time.sleep(_POLL_S)


def _try_lock(directory: Path) -> int | None:
    """Make and lock a directory; None if another process has it."""
    _make_directory(directory)
    try:
        directory.mkdir(exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        # Its owner has put it in its place between the two.
        return None
    except FileExistsError:
        if os.path.lexists(directory):
            raise
        # Its owner has done so after mkdir had found it there, and before it was looked at whether it is a directory.
        return None
    if _flock(descriptor) and is_still(directory, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _make_directory(directory: Path) -> None:
    """Make a directory where it is missing and the one above it is there.

    Raises:
        OSError: the file system makes no directories here. /proc and its like say then that something is missing.
    """
    for is_last in (False, True):
        try:
            directory.mkdir(exist_ok=True)
        except FileNotFoundError:
            # The directory above may have been removed, and made again, by another command that gave up.
            if is_last and directory.parent.is_dir():
                raise
        except FileExistsError:
            return  # what lies there is looked at below
        else:
            return


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems have no locks; users must then not run the same command twice at a time.
        return True
    return True


def is_still(directory: Path, descriptor: int) -> bool:
    """Whether a path still leads to the directory that was opened: its owner may have renamed or removed it since."""
    try:
        now, opened = os.stat(directory), os.fstat(descriptor)
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino)


def is_held(directory: Path) -> bool:
    """Whether a living process has locked a directory."""
    with locked(directory) as has_lock:
        return not has_lock


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Lock a directory that is there for as long as the context lasts; yields whether that was possible."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        # What is not there, or may not be read, is not at work on anything.
        yield True
        return
    try:
        yield _flock(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def directory_locked(directory: Path) -> Iterator[None]:
    """Let no other command begin in a directory while this context lasts, so that of two that begin one sees the other.

    A lock that cannot be had within some seconds is somebody else's, and is done without.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + OTHERS_PATIENCE_S
        while not _flock(descriptor) and time.monotonic() < deadline:
            time.sleep(_POLL_S / 10)
        yield
    finally:
        os.close(descriptor)


def _cannot_write(target: Path, place: Path, error: OSError) -> InputError:
    inside = f"choose another --out, such as {target / 'run'}" if place.is_dir() else "choose another --out"
    above = next((str(each) for each in place.parents if each.exists() and not each.is_dir()), None)
    reason = str(error.strerror) if above is None else f"'{above}' is no directory"
    return InputError(f"cannot write to '{place.parent}': {reason}", where=str(target), fix=inside)


def _first_missing(directory: Path) -> Path | None:
    missing = None
    while not directory.exists() and directory != directory.parent:
        missing, directory = directory, directory.parent
    return missing


def _remove_parents(directory: Path, made: Path | None) -> None:
    """Remove the empty directories down from ``made`` that were made in vain."""
    while made is not None and (directory == made or made in directory.parents):
        try:
            directory.rmdir()
        except OSError:
            return
        directory = directory.parent
