"""Errors that a user can act on, each with what was found, where, what to do next, and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from data_registry.core.shown import MOST_PROBLEMS, PROBLEM_CHARACTERS, clipped, message


def first_line(error: BaseException) -> str:
    """What a library's exception says, without its further explanations; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


class OgpsaError(Exception):
    """A failure whose message is meant for the user: printed without a traceback.

    Args:
        what: what was found, one sentence.
        where: the file, row, key or parameter concerned.
        fix: what to do next, preferably a command.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        # Parts of foreign files and whole command lines come to stand in messages, which stay shorter than a screen.
        super().__init__(message(what))
        self.what = message(what)
        self.where = where if where is None else message(where)
        self.fix = fix if fix is None else message(fix)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class ConfigError(OgpsaError):
    """An option is unknown, malformed, out of range, or does not go with another (exit code 2).

    Args:
        problems: every problem found, one line each; they are shown together.
    """

    def __init__(self, problems: Sequence[str] | str, *, where: str | None = None, fix: str | None = None) -> None:
        lines = [problems] if isinstance(problems, str) else list(problems)
        listed = [clipped(line, PROBLEM_CHARACTERS) for line in lines[:MOST_PROBLEMS]]
        listed += [f"and {len(lines) - MOST_PROBLEMS} more"] if len(lines) > MOST_PROBLEMS else []
        what = listed[0] if len(lines) == 1 else f"{len(lines)} problems:" + "".join(f"\n  - {line}" for line in listed)
        super().__init__(what, where=where, fix=fix)
        self.problems = lines


class InputError(OgpsaError):
    """An input cannot be used: missing, unreadable, of a wrong format, or empty (exit code 2)."""


class ArtifactError(OgpsaError):
    """An artifact does not verify, or is of another kind or configuration than asked for (exit code 3)."""

    exit_code = 3


class BasisMismatchError(ArtifactError):
    """A basis does not fit the model it is used with (exit code 3)."""


class NumericsError(OgpsaError):
    """A loss, gradient or weight is not finite, or training diverged (exit code 4)."""

    exit_code = 4


class EngineError(OgpsaError):
    """The training engine is configured in a way that gradient projection cannot serve (exit code 2)."""


class Preempted(OgpsaError):  # noqa: N818 - being preempted is no error
    """The run was asked to stop, has saved, and the same command goes on from there (exit code 75)."""

    exit_code = 75
