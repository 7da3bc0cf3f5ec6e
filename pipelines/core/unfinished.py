"""Unfinished work that was asked to stop says so, for whoever did not see it end, such as a batch script."""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path

from data_registry.core import stopping
from data_registry.core.errors import InputError, Preempted

# Holds what was said then. Work that ended in another way has none.
_MARK = ".stopped"


def note_begin(partial: Path) -> None:
    """Work in ``partial`` begins, or goes on."""
    (partial / _MARK).unlink(missing_ok=True)


def note_end(partial: Path, error: BaseException) -> None:
    """Work in ``partial`` ended early; note it if that was asked for."""
    if isinstance(error, Preempted | stopping.StopRequested):
        said = str(error) if isinstance(error, Preempted) else stopping.said()
        with contextlib.suppress(OSError):
            (partial / _MARK).write_text(said, encoding="utf-8")


def check(target: Path) -> None:
    """Say so where nothing lies at ``target`` but the work of a command that makes it.

    Raises:
        Preempted: that command was asked to stop, and the same command goes on.
        InputError: it is still at work, or ended in another way.
    """
    if target.exists():
        return
    target = Path(os.path.abspath(target))
    found = [path for path in sorted(target.parent.glob(f".{glob.escape(target.name)}.partial-*")) if path.is_dir()]
    marks = [path / _MARK for path in found if (path / _MARK).is_file()]
    if marks:
        raise Preempted(f"'{target}' is not finished: {marks[0].read_text(encoding='utf-8').strip()}")
    if found:
        raise InputError(
            f"'{target}' is not finished: a command is at work on it, or has failed or was killed",
            where=str(found[0]),
            fix="run that command again; it goes on from what it had saved",
        )
