"""What counts as a value in a row: NaN, empty text and the like say nothing; marks say yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from data_registry.core.json_text import decode

# What pandas makes of a missing value where it writes text.
_MISSING_TEXTS: Final = frozenset({"nan", "NaN", "NAN", "<NA>", "NaT"})
# JSON texts of values that say nothing, as CSV files and columns of JSON text have them.
_EMPTY_TEXTS: Final = frozenset({"[]", "{}", "null", "[null]", '""', "None"})
_DEPTH: Final = 20

_YES: Final = frozenset({"true", "yes", "y", "t", "1", "1.0", "good", "desirable", "desired", "chosen", "accepted"})
_NO: Final = frozenset(
    {"false", "no", "n", "f", "0", "0.0", "-1", "-1.0", "bad", "undesirable", "undesired", "rejected", "unaccepted"}
)


def is_missing(value: object) -> bool:
    """Whether a value is none: null, NaN, or the text that pandas writes for NaN."""
    if value is None:
        return True
    if isinstance(value, str):
        return len(value) <= 8 and value.strip() in _MISSING_TEXTS
    # NaN differs from itself; nothing else that rows hold does.
    return isinstance(value, float) and value != value


def says_something(value: object, depth: int = 0) -> bool:
    """Whether a value holds anything: it is not missing, not blank, and no list or mapping of such values.

    ``false`` and 0 are values. What is nested deeply counts as something, ``depth`` says how deep the value lies.
    """
    if depth > _DEPTH:
        return True
    if isinstance(value, str):
        if len(value) > 8:
            return not value.isspace()
        text = value.strip()
        return bool(text) and text not in _MISSING_TEXTS and text not in _EMPTY_TEXTS
    if isinstance(value, Mapping):
        return any(says_something(part, depth + 1) for part in value.values())
    if isinstance(value, list | tuple):
        return any(says_something(part, depth + 1) for part in value)
    return not is_missing(value)


def as_mark(value: object) -> bool | None:
    """A mark as yes or no: a truth value, 1 against 0 or -1, or a word for either; None where it is none of these."""
    if isinstance(value, int | float):
        return True if value == 1 else False if value in (0, -1) else None
    word = str(value).strip().lower() if isinstance(value, str) else ""
    return True if word in _YES else False if word in _NO else None


def as_number(value: object) -> float | None:
    """A number, also written as text; a truth value counts as 1 or 0; None where it is none."""
    mark = {"true": 1.0, "false": 0.0}
    try:
        if isinstance(value, str):
            return mark.get(value.strip().lower()) if value.strip().lower() in mark else float(value)
        return float(value) if isinstance(value, int | float) else None
    except (ValueError, OverflowError):
        return None


def decoded(value: object) -> object:
    """A list from its JSON text, as CSV files have it; anything else as it is.

    What Python cannot hold is :class:`Unreadable`.

    Raises:
        ValueError: the text begins like a list and is no JSON.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        return decode(value)
    return value
