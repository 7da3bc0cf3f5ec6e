"""A note in unfinished work that it was asked to stop, for those who did not see it end, such as a batch script."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from data_registry.core import stopping
from data_registry.core.errors import InputError, Preempted
from data_registry.core.redaction import hide
from pipelines.core.aside import all_aside
from pipelines.core.place import is_free, place_of

# The file holds the message of the stop. Work that ended in another way has no such file.
_MARK = ".stopped"


def note_begin(partial: Path) -> None:
    """Record that work in ``partial`` begins or goes on."""
    (partial / _MARK).unlink(missing_ok=True)


def note_end(partial: Path, error: BaseException) -> None:
    """Record that work in ``partial`` ended early, if it did because it was asked to stop."""
    if isinstance(error, Preempted | stopping.StopRequested):
        said = str(error) if isinstance(error, Preempted) else stopping.said()
        with contextlib.suppress(OSError):
            (partial / _MARK).write_text(hide(said), encoding="utf-8")


def check(target: Path) -> None:
    """Raise an error where nothing lies at ``target``, but a command has left unfinished work on it.

    Raises:
        Preempted: that command was asked to stop, and the same command will go on.
        InputError: that command is still at work, or ended in another way.
    """
    place = place_of(target)
    if not is_free(place):
        return
    target = Path(os.path.abspath(target))
    found = all_aside(place, "partial")
    marks = [path / _MARK for path in found if (path / _MARK).is_file()]
    if marks:
        raise Preempted(f"'{target}' is not finished: {marks[0].read_text(encoding='utf-8').strip()}")
    if found:
        raise InputError(
            f"'{target}' is not finished: a command is at work on it, or has failed or was killed",
            where=str(found[0]),
            fix="run that command again; it goes on from what it had saved",
        )
