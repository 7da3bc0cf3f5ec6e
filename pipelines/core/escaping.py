"""Names and texts of others, put into Markdown and CSV so that they stay what they are: text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from data_registry.core.visible import visible

# What CommonMark and its tables, mathematics ($) and strike-through (~) would take for markup. An underscore within a
# word is none, and a bracket only where a target follows.
_MARKUP: Final = re.compile(r"[\\`*<>|&$~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])")
# A spreadsheet evaluates a cell that begins with one of these; the wide forms are those of East Asian keyboards.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BACKTICKS: Final = re.compile(r"`+")


def markdown_text(text: str) -> str:
    """A text of one line for Markdown, in a table or elsewhere: shown as it is, whatever characters it has."""
    return _MARKUP.sub(r"\\\g<0>", visible(text))


def markdown_code(text: str) -> str:
    """A text of one line as a code span, within more backticks than it has; pipes too may stand in a table."""
    if not text:
        return ""
    shown = visible(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, _BACKTICKS.findall(shown)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{shown}{space}{fence}"


def markdown_block(text: str, language: str) -> str:
    """Lines as a block of code, within a fence that is longer than any row of backticks in it.

    Args:
        text: the lines, with or without a newline at the end.
        language: the language that the block is in, such as ``yaml``.
    """
    shown = visible(text, block=True).removesuffix("\n")
    fence = "`" * max(3, 1 + max(map(len, _BACKTICKS.findall(shown)), default=0))
    return f"{fence}{language}\n{shown}\n{fence}"


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a table, with its newline; the cells are text."""
    return f"| {' | '.join(map(markdown_text, cells))} |\n"


def csv_text(text: str) -> str:
    """A cell of CSV that is text: one that a spreadsheet would evaluate as a formula gets an apostrophe before it.

    Numbers are not given to this function, so that they stay numbers.
    """
    shown = f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
    return visible(shown)
