"""A local folder is read from that folder alone: what is in it, and what would lead out of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from data_registry.core.errors import InputError

logger = logging.getLogger(__name__)


def files_below(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is not itself a folder; names that begin with a point are left out.

    Links to folders are not followed; a warning names them.

    Raises:
        InputError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read '{error.filename or folder}': {error.strerror or error}") from error

    for directory, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if os.path.islink(os.path.join(directory, name)):
                logger.warning("'%s' is a link to another folder, which is not read", os.path.join(directory, name))
        yield from (Path(directory, name) for name in files if not name.startswith("."))


def within(folder: Path, name: str) -> Path:
    """The path of a file that a folder itself names.

    Raises:
        InputError: the name is an address, or leads out of the folder.
        TypeError: it is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"a {type(name).__name__} where the name of a file is expected")
    if "://" in name or "::" in name or "\x00" in name:
        raise InputError(
            f"the folder '{folder}' names '{name}', which does not lie in it: a local folder is read from that folder "
            "alone",
            fix="fetch what it names, and give that as the source",
        )
    path = folder / name
    if os.path.isabs(name) or ".." in Path(name).parts:
        raise _leads_out(folder, path)
    check_within(folder, path)
    return path


def check_within(folder: Path, path: Path) -> None:
    """Refuse a path below a folder that a link leads out of the folder.

    A folder in the cache of the hub consists of links to the files of the same repository's cache; these may be read.

    Raises:
        InputError: it leads out.
    """
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(_boundary(Path(os.path.realpath(folder)))):
        raise _leads_out(folder, path)


def _boundary(folder: Path) -> Path:
    for parent in (folder, *folder.parents):
        if parent.parent.name == "snapshots" and (parent.parents[1] / "blobs").is_dir():
            return parent.parents[1]
    return folder


def _leads_out(folder: Path, path: Path) -> InputError:
    return InputError(
        f"'{path}' leads out of the folder '{folder}', to '{os.path.realpath(path)}': a local folder is read from that "
        "folder alone",
        fix="copy the file into the folder, or give the file itself as the source",
    )
