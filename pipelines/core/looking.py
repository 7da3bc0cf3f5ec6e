"""Looking only: a command runs up to where it would begin to make something, so that it can say what is made already.

``ogpsa run`` asks every step's own command whether its artifact is there, in its own process. The command decides by
its own rule; wherever it would go on to work, or needs a library that takes seconds to import, it ends with
:class:`WouldWork`, and is then started as a process.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

HEAVY: Final = frozenset({"accelerate", "datasets", "deepspeed", "lm_eval", "peft", "torch", "transformers", "trl"})
"""Libraries that take longer to import than all manifests of a chain take to read."""


class WouldWork(BaseException):
    """A command that only looks would begin to work, or cannot tell without doing so."""


_when_found: Callable[[], None] | None = None


@contextlib.contextmanager
def looking(when_found: Callable[[], None]) -> Iterator[None]:
    """A context in which commands look whether their artifacts are there, and make none.

    Libraries of :data:`HEAVY` that are not imported yet cannot be imported in it.

    Args:
        when_found: called when an artifact was found, before the command goes on to show what is in it.

    Raises:
        WouldWork: the command in it would begin to work.
    """
    global _when_found
    before, guard = _when_found, _Guard()
    _when_found = when_found
    sys.meta_path.insert(0, guard)
    try:
        yield
    finally:
        sys.meta_path.remove(guard)
        _when_found = before


def end_if_looking() -> None:
    """End a command that only looks; call this where work would begin.

    Raises:
        WouldWork: it only looks.
    """
    if _when_found is not None:
        raise WouldWork


def note_found() -> None:
    """Note that an artifact was found, for whoever looks."""
    if _when_found is not None:
        _when_found()


class _Guard:
    """A finder of modules that lets no heavy library be found."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave a module to the next finder.

        Raises:
            WouldWork: it belongs to a heavy library.
        """
        if name.partition(".")[0] in HEAVY:
            raise WouldWork(name)
        return None
