"""The names of what lies aside of an artifact: hidden, beside its place, and named after it."""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path
from typing import Literal

# What may lie aside of an artifact: the directory in which it is made, what it replaced, and the trial of a rename.
Aside = Literal["partial", "replaced", "trial"]

_MAX_NAME_BYTES = 255
# The longest ending of a name aside, such as ``.partial-0123abcd`` or ``.replaced-`` with the id of a process.
_ENDING_BYTES = 24


def aside_of(place: Path, kind: Aside, ending: str) -> Path:
    """The path of what lies aside of a place: hidden, beside it, and named after it."""
    return place.with_name(f".{_stem(place.name)}.{kind}-{ending}")


def all_aside(place: Path, kind: Aside) -> list[Path]:
    """The directories of a kind that lie aside of a place, in order of their names."""
    pattern = f".{glob.escape(_stem(place.name))}.{kind}-*"
    return sorted(path for path in place.parent.glob(pattern) if path.is_dir() and not path.is_symlink())


def _stem(name: str) -> str:
    """The name; if an ending would make it longer than file systems allow, its beginning and a digest."""
    if len(os.fsencode(name)) <= _MAX_NAME_BYTES - _ENDING_BYTES - 2:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return os.fsencode(name)[:200].decode(errors="ignore") + "~" + digest
