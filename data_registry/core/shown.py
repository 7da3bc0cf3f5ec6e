"""Values and texts in messages, shortened here and nowhere else, so that no message is longer than a screen."""

from __future__ import annotations

import reprlib
from typing import Any, Final

VALUE_CHARACTERS: Final = 200
PROBLEM_CHARACTERS: Final = 600
MESSAGE_CHARACTERS: Final = 2400
MESSAGE_LINES: Final = 30
MOST_PROBLEMS: Final = 20


class _Short(reprlib.Repr):
    """Looks at no more of a value than it shows, whatever the value's size."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 160, 160
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 8

    def repr_int(self, x: int, level: int) -> str:
        """The digits of a whole number; Python itself refuses to write out those of very long ones."""
        try:
            return super().repr_int(x, level)
        except ValueError:
            return f"a whole number of {x.bit_length()} bits"


_SHORT: Final = _Short()


def shown(value: Any) -> str:
    """A value as messages show it: as Python writes it, with its large and deep parts left out."""
    return clipped(_SHORT.repr(value), VALUE_CHARACTERS)


def clipped(text: str, most: int = MESSAGE_CHARACTERS, *, lines: int | None = None) -> str:
    """A text of at most about ``most`` characters, and ``lines`` lines; the middle of a longer one is left out."""
    if lines is not None and text.count("\n") >= lines:
        whole = text.split("\n")
        head, tail = lines * 3 // 4, lines - lines * 3 // 4 - 1
        left_out = len(whole) - head - tail
        text = "\n".join([*whole[:head], f"  ... {left_out} lines ...", *whole[len(whole) - tail :]])
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters ... {text[-half:]}"


def message(text: str) -> str:
    """A text that is shown as a message, never longer than a screen."""
    return clipped(text, MESSAGE_CHARACTERS, lines=MESSAGE_LINES)
