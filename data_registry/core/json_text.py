"""JSON from elsewhere: what Python cannot hold is marked where it stands, and nothing is lost without a word."""

from __future__ import annotations

import json
from typing import Any, Final

from data_registry.core.errors import first_line
from data_registry.core.unreadable import Unreadable

MAX_DEPTH: Final = 100
"""The greatest depth of nesting that is read. What walks through rows later calls itself once for each level."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Unreadable:
    """An object; of a key that appears twice only one value could be kept."""
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    names = [name for name, _ in pairs]
    return Unreadable(f"the key '{next(name for name in names if names.count(name) > 1)}' appears twice in an object")


def _integer(digits: str) -> int | Unreadable:
    try:
        return int(digits)
    except ValueError:  # Python reads 4300 digits and no more, because the time for it grows with their square
        return Unreadable(f"a whole number of {len(digits)} digits")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object)
# A function of our own for every whole number takes time, so it is used only where there is one that is too long.
_PATIENT_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def what_is_wrong(error: json.JSONDecodeError) -> str:
    """What makes a text no JSON, in the words of people who write it, and where a library says no more, in its words.

    Args:
        error: what the decoder raised; it holds the text and the place.
    """
    text, place = error.doc, error.pos
    here, before = text[place : place + 40].lstrip(), text[max(0, place - 40) : place].rstrip()[-1:]
    if here.startswith(("//", "/*", "#")):
        return "a comment stands here, which JSON does not have: take it out"
    if (here[:1] in ("]", "}") and before == ",") or (here[:1] == "," and here[1:].lstrip()[:1] in ("]", "}")):
        return f"a comma stands before the closing '{here.lstrip(', ')[:1]}': take it out"
    if here.startswith("'"):
        return "a text stands in single quotes, as Python prints it: JSON has double quotes (json.dumps writes it)"
    word = next((word for word in ("True", "False", "None", "undefined") if here.startswith(word)), None)
    if word is not None:
        return f"'{word}' is no value of JSON, which has true, false and null (json.dumps writes them)"
    return first_line(error)


def decode_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value that begins at a position of a text, and the position after it.

    Whole numbers that are too long, and objects that name a key twice, are :class:`Unreadable`.

    Raises:
        json.JSONDecodeError: there is no JSON value.
        RecursionError: it is nested far too deeply.
    """
    try:
        value, end = _DECODER.raw_decode(text, position)
    except json.JSONDecodeError:
        raise
    except ValueError:
        value, end = _PATIENT_DECODER.raw_decode(text, position)
    # A value that is nested so deeply has at least as many brackets.
    if text.count("[", position, end) + text.count("{", position, end) > MAX_DEPTH and _is_too_deep(value):
        return Unreadable(f"values are nested more than {MAX_DEPTH} deep"), end
    return value, end


def decode(data: bytes | str) -> Any:
    """The value of a JSON text, where what Python cannot hold is :class:`Unreadable`.

    Raises:
        ValueError: it is not JSON; the message says what is wrong.
    """
    try:
        # Half of a surrogate pair is let through here: it is wrong only where the text that holds it is used.
        text = data.decode("utf-8", "surrogatepass") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from error
    text = text.removeprefix("\ufeff").strip(" \t\r\n")
    try:
        value, end = decode_at(text, 0)
    except RecursionError:
        return Unreadable(f"values are nested more than {MAX_DEPTH} deep")
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {what_is_wrong(error)}") from error
    if text[end:].strip() == ",":
        raise ValueError("not JSON: a comma stands after the value; objects, one a line, have none between them")
    if end < len(text):
        raise ValueError(f"not JSON: there is more text after the end of the value, at character {end + 1}")
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            part
            for whole in level
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True
