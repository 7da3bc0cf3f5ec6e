"""The work of ``ogpsa clean``: find what interrupted and superseded runs left behind, and remove it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_registry.core.errors import InputError
from pipelines.configs.tools import CleanConfig
from pipelines.core.leftovers import Leftover, leftover_at, leftovers_below, leftovers_of, remove


@dataclass(frozen=True)
class Cleaned:
    """What was found, in order of paths, and what became of it.

    Attributes:
        removed: what is gone.
        kept: unfinished work that nobody agreed to remove, and what a command has begun to use meanwhile.
        untouched: what a running command uses, and finished artifacts that are nowhere else.
    """

    removed: tuple[Leftover, ...]
    kept: tuple[Leftover, ...]
    untouched: tuple[Leftover, ...]


def find(config: CleanConfig) -> list[Leftover]:
    """Everything that was left behind beside and below the path, in order of paths; nothing is changed.

    Raises:
        InputError: nothing is there, or it is a file.
    """
    path = config.path
    itself = leftover_at(path)
    if itself is not None:
        return [itself]
    found = {each.path: each for each in [*leftovers_of(path), *leftovers_below(path)]}
    if not found and not path.is_dir():
        is_there = os.path.lexists(path)
        raise InputError(
            f"'{path}' is no directory" if is_there else f"there is no '{path}', and nothing was left beside it",
            fix="name the --out of a command, or a folder of several",
        )
    return [found[path] for path in sorted(found)]


def run(config: CleanConfig, agrees: Callable[[Sequence[Leftover]], bool] = lambda unfinished: False) -> Cleaned:
    """Remove what is of no use, and unfinished work if the options or ``agrees`` say so.

    Args:
        config: the options.
        agrees: asked about the unfinished work, if there is any and ``--yes`` was not given.

    Raises:
        InputError: as for :func:`find`.
    """
    found = find(config)
    unfinished = [each for each in found if each.kind == "unfinished"]
    all_of_them = not unfinished or config.yes or agrees(unfinished)
    to_go = [each for each in found if each.removable and (all_of_them or each.kind != "unfinished")]
    removed = tuple(each for each in to_go if remove(each))
    untouched = tuple(each for each in found if not each.removable)
    kept = tuple(each for each in found if each.removable and each not in removed)
    return Cleaned(removed, kept, untouched)


def plan(config: CleanConfig) -> list[tuple[str, str]]:
    """What lies there, as pairs of kind and path."""
    return [(each.kind, str(each.path)) for each in find(config)]
