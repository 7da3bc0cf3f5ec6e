"""Fits texts and tables to the width of a terminal, so that no word is broken and every command can be copied.

Lines are broken between words alone. A path that is longer than a line stays whole, and so does a command: it gets a
line of its own, which the terminal wraps without adding anything to what is copied.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

# In all messages a command stands after two spaces, and a remark on it after further ones and a number sign.
_COMMAND: Final = re.compile(r"(?<=  )(?:ogpsa|pip|python|mv|xdg-open|sbatch|HF_\w+=\S+) \S.*?(?=\s{2,}#|$)")
_LABEL: Final = re.compile(r"\s*(?:# +)?\S(?:.*?\S)?\s{2,}(?=\S)")
_MOST_LINES: Final = 4
"""Rows of a table that take more lines than this on average are easier to read as blocks."""


def width_of(stream: TextIO) -> int:
    """The number of columns of the terminal behind a stream; ``COLUMNS`` wins, and 80 where nothing is known."""
    if os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def wrapped(line: str, width: int, *, indent: int | None = None) -> list[str]:
    """A line as lines of at most ``width`` characters, but for single words and commands that are longer.

    Args:
        line: text without line ends. What stands in columns, ``name  value``, keeps its second column.
        width: the number of columns.
        indent: the number of spaces before the second line and all others; by default it follows from the line.
    """
    if len(line) <= width:
        return [line]
    command = _COMMAND.search(line)
    if command is None:
        return _filled(line, width, _hanging(line, width) if indent is None else " " * indent)
    before, after = line[: command.start()].rstrip(), line[command.end() :].strip()
    inner = " " * (indent if indent is not None else len(line) - len(line.lstrip()) + 2)
    lines = wrapped(before, width, indent=indent) if before else []
    lines.append(inner + command.group())
    return lines + (_filled(inner + "  " + after, width, inner + "  # ") if after else [])


def _hanging(line: str, width: int) -> str:
    """The beginning of all lines but the first."""
    label = _LABEL.match(line)
    lead = len(line) - len(line.lstrip())
    column = label.end() if label is not None and label.end() <= width // 2 else lead + 2
    mark = "#" if line.startswith("#") else ""
    return mark + " " * (max(column, 4 if mark else 0) - len(mark))


def _filled(line: str, width: int, hanging: str) -> list[str]:
    return textwrap.wrap(
        line, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False,
        replace_whitespace=False, tabsize=4,
    )  # fmt: skip


def fits(console: Console, table: Table) -> bool:
    """Whether a table can be shown on a console with no word broken, and with rows that are not mere strips."""
    from rich.measure import Measurement

    if Measurement.get(console, console.options, table).minimum > console.width:
        return False
    lines = len(console.render_lines(table))
    return lines <= max(_MOST_LINES * (table.row_count + 1), _MOST_LINES + table.row_count)


def fitted(console: Console, renderable: RenderableType) -> Iterator[RenderableType]:
    """What to print for a renderable: a text broken between words, a table that is too wide as a block for each row."""
    from rich.table import Table
    from rich.text import Text

    if isinstance(renderable, Text):
        for line in renderable.split("\n", allow_blank=True):
            yield from _lines(line, console.width)
    elif isinstance(renderable, Table) and not fits(console, renderable):
        yield from blocks(renderable, console.width)
    else:
        yield renderable


def _lines(line: Text, width: int) -> Iterator[Text]:
    """A line as lines of whole words with their styles; rich itself would break a word that is longer than a line."""
    starts, start = [], 0
    for word in re.finditer(r"\S+", line.plain):
        if word.end() - start > width and word.start() > start:
            start = word.start()
            starts.append(start)
    for part in line.divide(starts):
        part.rstrip()
        yield part


def blocks(table: Table, width: int) -> Iterator[Text]:
    """The rows of a table as lines: the first cell, and below it each other cell behind its heading."""
    from rich.text import Text

    headings = [_plain(column.header) if table.show_header else "" for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        filled = [
            (heading, _as_text(cell)) for heading, cell in zip(headings, row, strict=True) if _plain(cell).strip()
        ]
        for number, (heading, cell) in enumerate(filled):
            is_title = number == 0
            start = "" if is_title else f"  {heading}: " if heading else "  "
            for part in cell.plain.splitlines():
                for line in wrapped(start + part.strip(), width, indent=2 if is_title else 4):
                    yield Text(line, style=_style(cell))
                start = "    "


def _as_text(cell: RenderableType) -> Text:
    from rich.text import Text

    return cell if isinstance(cell, Text) else Text(str(cell))


def _plain(cell: RenderableType) -> str:
    return _as_text(cell).plain


def _style(cell: Text) -> str:
    return str(cell.style or next((span.style for span in cell.spans), ""))
