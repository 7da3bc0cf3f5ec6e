"""Texts of others made fit to be shown: what a terminal would obey, and what nobody could see, is spelled out.

Data, manifests, names and answers are anybody's. A control character in them could set a window's title, write to the
clipboard, erase or forge lines; a bidirectional control could turn the order of what is read around.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

# Controls (C0, DEL, C1), lone surrogates, bidirectional controls, line and paragraph separators, invisible operators,
# annotations, the byte order mark and tags. The joiners U+200C and U+200D stay: Persian, Hindi and emoji need them.
_ALWAYS: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
_IN_BLOCKS: Final = re.compile(f"[{_ALWAYS}]")
# A zero-width space breaks the lines of Thai and Khmer text; in a name it hides that two names differ.
_IN_LINES: Final = re.compile(f"[{_ALWAYS}\t\n\u200b]")
_SHORT: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: str, *, block: bool = False) -> str:
    r"""The text with every character that would act on a terminal, or stay unseen, written as an escape.

    Args:
        text: any text. What is escaped already is left as it is, so that applying this twice changes nothing.
        block: the text has lines: newlines and tabs stay. Otherwise it is one line, and they become ``\n`` and ``\t``.

    Returns:
        Text in which ``\x1b``, ``\u202e`` and the like are spelled out. It can always be encoded as UTF-8.
    """
    return (_IN_BLOCKS if block else _IN_LINES).sub(_escape, text)


def visible_json(text: str) -> str:
    """JSON text with the same characters as JSON's own escapes: it reads back as the same value."""
    return _IN_BLOCKS.sub(_json_escape, text)


def is_text(value: object) -> bool:
    """Whether all texts in a JSON-ready value can be written in UTF-8: a name of a file need not be."""
    if isinstance(value, str | os.PathLike):
        return not any("\ud800" <= character <= "\udfff" for character in os.fspath(value))
    if isinstance(value, Mapping):
        return all(is_text(key) and is_text(below) for key, below in value.items())
    return all(map(is_text, value)) if isinstance(value, list | tuple) else True


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(found: re.Match[str]) -> str:
    units = found.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
