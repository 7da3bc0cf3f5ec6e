"""Splits: which ones the names of files tell, and which one is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError

SPLITS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The split that a word in a file's name tells."""


def split_of(path: Path) -> str:
    """The split that a file's name, or a folder above it, tells; empty if none."""
    for part in reversed(path.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return ""


def choose_split(asked: str | None, splits: list[str], where: str) -> str:
    """The split asked for, or the only one there is.

    Raises:
        ConfigError: it is not there, or there are several to choose from.
    """
    if asked is None and len(splits) == 1:
        return splits[0]
    if asked is None:
        raise ConfigError(
            f"there are several splits: {', '.join(splits)}", where=where, fix="choose one with --source-split"
        )
    if asked not in splits:
        raise ConfigError(
            f"there is no split '{asked}'{suggest(asked, splits)}; there are: {', '.join(splits)}", where=where
        )
    return asked
