"""What interrupted and superseded runs left behind: found by its name, told apart by what it holds, and removed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_registry.core.errors import OgpsaError
from data_registry.core.manifest import is_artifact, read_manifest, verify
from pipelines.core.aside import all_aside
from pipelines.core.claiming import is_held, locked
from pipelines.core.place import place_of
from pipelines.core.placing import discard

Kind = Literal["unfinished", "superseded", "finished", "in use"]

_ASIDE = re.compile(r"\.(?P<name>.+)\.(?P<kind>partial-[0-9a-f]{8}|replaced-\d+|trial-\d+m?)", re.DOTALL)
# The checkpoints of a run that was finished and then killed before it had removed them.
_CHECKPOINTS = ".checkpoints"


@dataclass(frozen=True)
class Leftover:
    """A directory that a command left behind.

    Attributes:
        path: the directory.
        place: the place of the artifact that it belongs to.
        kind: ``unfinished`` (work that was interrupted: the same command may go on from it), ``superseded`` (of no use
            to anybody: replaced, empty, or the checkpoints of a finished run), ``finished`` (a whole artifact that is
            nowhere else) or ``in use`` (by a command that runs).
        size_bytes: the size of the files in it.
    """

    path: Path
    place: Path
    kind: Kind
    size_bytes: int

    @property
    def removable(self) -> bool:
        """Whether it may be removed: no command uses it, and no finished artifact goes with it."""
        return self.kind in ("unfinished", "superseded")


def leftover_at(path: Path) -> Leftover | None:
    """What was left behind at exactly this path; None if it is something else."""
    aside = _ASIDE.fullmatch(path.name)
    if aside is None or path.is_symlink() or not path.is_dir():
        return None
    return _look(path, path.with_name(aside["name"]))


def leftovers_of(target: Path) -> list[Leftover]:
    """What was left behind aside of one artifact, and in it; a link is followed."""
    place = place_of(target)
    asides = [path for kind in ("partial", "replaced", "trial") for path in all_aside(place, kind)]
    return [_look(path, place) for path in asides if _ASIDE.fullmatch(path.name)] + _in_artifact(place)


def leftovers_below(folder: Path, *, most_folders: int | None = None) -> list[Leftover]:
    """What was left behind anywhere below a folder; links are not followed.

    Args:
        folder: where to look.
        most_folders: how many folders to look into at most; None looks into all.
    """
    found: list[Leftover] = []
    for number, (directory, names, _) in enumerate(os.walk(folder)):
        if most_folders is not None and number >= most_folders:
            break
        here = Path(directory)
        found += _in_artifact(here)
        for name in sorted(names):
            aside = _ASIDE.fullmatch(name)
            if aside is not None and not (here / name).is_symlink():
                found.append(_look(here / name, here / aside["name"]))
        # What lies in a hidden folder belongs to whoever made that folder.
        names[:] = sorted(name for name in names if not name.startswith("."))
    return found


def remove(leftover: Leftover) -> bool:
    """Remove what was left behind, unless a command has begun to use it since it was looked at.

    Returns:
        Whether it is gone.
    """
    if not leftover.removable:
        return False
    with contextlib.ExitStack() as locks:
        # With a replaced artifact, its place is what a command holds while it changes both.
        for path in {leftover.path, leftover.place}:
            if path.is_dir() and not locks.enter_context(locked(path)):
                return False
        if _look(leftover.path, leftover.place, holds_locks=True).kind != leftover.kind:
            return False
        discard(leftover.path)
    return not os.path.lexists(leftover.path)


def _in_artifact(place: Path) -> list[Leftover]:
    """The checkpoints in a finished run."""
    folder = place / _CHECKPOINTS
    if not is_artifact(place) or not folder.is_dir() or folder.is_symlink():
        return []
    return [Leftover(folder, place, "in use" if is_held(place) else "superseded", _size(folder))]


def _look(path: Path, place: Path, *, holds_locks: bool = False) -> Leftover:
    return Leftover(path, place, _kind(path, place, holds_locks=holds_locks), _size(path))


def _kind(path: Path, place: Path, *, holds_locks: bool) -> Kind:
    if path.name == _CHECKPOINTS:
        return "superseded"
    if not holds_locks and (is_held(path) or (place.is_dir() and is_held(place))):
        return "in use"
    if ".trial-" in path.name and any(is_held(partial) for partial in all_aside(place, "partial")):
        # Who tries a rename holds the directory in which the artifact will be made.
        return "in use"
    if is_artifact(path):
        return "finished" if _is_only_copy(path, place) else "superseded"
    is_empty = not any(each.is_file() for each in path.rglob("*"))
    return "superseded" if is_empty or ".partial-" not in path.name else "unfinished"


def _is_only_copy(path: Path, place: Path) -> bool:
    """Whether a whole artifact lies aside that has not been replaced by the one in its place."""
    try:
        manifest = read_manifest(path)
        if verify(path, manifest, hashes=False):
            return False
        return not is_artifact(place) or read_manifest(place).finished < manifest.started
    except OgpsaError:
        # A damaged manifest: nobody can say what is lost with it.
        return True


def _size(folder: Path) -> int:
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    for directory, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(directory, name)).st_size
