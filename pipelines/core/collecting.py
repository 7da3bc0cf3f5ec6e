"""When Python looks for garbage: hardly ever while libraries are imported, as usual once work begins.

Importing makes a million objects and next to no garbage. Python would look through them again and again, which takes a
seventh of the time of importing what training needs, and once more whenever a library asks for a full collection.
"""

from __future__ import annotations

import gc
from typing import Final

# New objects between two looks while libraries are imported: some ten looks until training begins.
_SELDOM: Final = (100_000, 20, 20)
_usual: tuple[int, int, int] | None = None


def begin_seldom() -> None:
    """Look for garbage again, but seldom, until :func:`settle` is called.

    It follows on the console script's start, which does not look at all; in any other process nothing changes.
    """
    global _usual
    if gc.isenabled():
        return
    _usual = gc.get_threshold()
    # What is there stays until the end. Without this, the first look would go through all of it.
    gc.freeze()
    gc.set_threshold(*_SELDOM)
    gc.enable()


def settle() -> None:
    """Look for garbage as usual from now on, but never again among the objects that there are; libraries are loaded."""
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None
