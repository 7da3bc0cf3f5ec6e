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
    from rich.tree import Tree

    Cells = list[tuple[str, Text]]

# In all messages a command stands after two spaces, and a remark on it after further ones and a number sign.
_COMMAND: Final = re.compile(r"(?<=  )(?:ogpsa|pip|python|mv|xdg-open|sbatch|HF_\w+=\S+) \S.*?(?=\s{2,}#|$)")
_LABEL: Final = re.compile(r"\s*(?:# +)?\S(?:.*?\S)?\s{2,}(?=\S)")
_WIDEST: Final = 4000
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
    """Whether a table can be shown on a console with no word broken, and with rows that are not mere strips.

    A first column whose words would be broken is kept from wrapping, if the table then fits.
    """
    if not table.columns or _keeps_words(console, table):
        return True
    if table.columns[0].no_wrap:
        return False
    table.columns[0].no_wrap = True
    return _keeps_words(console, table)


def _keeps_words(console: Console, table: Table) -> bool:
    # rich makes columns narrower than their longest word, and cuts or breaks it, so that the outcome is looked at.
    lines = ["".join(segment.text for segment in line) for line in console.render_lines(table)]
    if len(lines) > max(_MOST_LINES * (table.row_count + 1), _MOST_LINES + table.row_count):
        return False
    shown = {word for line in lines for word in line.split()}
    cells = [cell for column in table.columns for cell in column.cells]
    cells += [column.header for column in table.columns] if table.show_header else []
    return all(word in shown for cell in cells for word in _plain(cell).split())


def fitted(console: Console, renderable: RenderableType) -> Iterator[RenderableType]:
    """What to print for a renderable: texts and trees broken between words, a table that is too wide as blocks."""
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

    if isinstance(renderable, Tree):
        yield from _branches(console, renderable)
    elif isinstance(renderable, Text):
        for line in renderable.split("\n", allow_blank=True):
            yield from _lines(line, console.width)
    elif isinstance(renderable, Table) and not fits(console, renderable):
        yield from blocks(renderable, console.width)
    else:
        yield renderable


def _branches(console: Console, tree: Tree) -> Iterator[Text]:
    """The lines of a tree; rich itself would cut long paths off."""
    from rich.text import Text

    wide = console.options.update(width=_WIDEST)
    for segments in console.render_lines(tree, wide, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        guide = len(line.plain) - len(line.plain.lstrip(" │├└─"))
        yield from _lines(line, console.width, indent=guide + 2)


def _lines(line: Text, width: int, *, indent: int = 0) -> Iterator[Text]:
    """A line as lines of whole words with their styles; rich itself would break a word that is longer than a line."""
    from rich.text import Text

    starts, start, room = [], 0, width
    for word in re.finditer(r"\S+", line.plain):
        if word.end() - start > room and line.plain[start : word.start()].strip():
            start, room = word.start(), width - indent
            starts.append(start)
    for number, part in enumerate(line.divide(starts)):
        part.rstrip()
        yield Text.assemble(" " * indent, part) if number else part


def blocks(table: Table, width: int) -> Iterator[Text]:
    """The rows of a table as lines: the first cell, and below it each other cell behind its heading."""
    from rich.text import Text

    headings = [_plain(column.header) if table.show_header else "" for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        filled = [
            (heading, _as_text(cell)) for heading, cell in zip(headings, row, strict=True) if _plain(cell).strip()
        ]
        if not table.show_header:
            title, filled = _together([("", line) for _, cell in filled for line in cell.split("\n")], width)
            yield from _lines(title, width, indent=2)
        for number, (heading, cell) in enumerate(filled, start=0 if table.show_header else 1):
            is_title = number == 0
            start = "" if is_title else f"  {heading}: " if heading else "  "
            for part in cell.plain.splitlines():
                for line in wrapped(start + part.strip(), width, indent=2 if is_title else 4):
                    yield Text(line, style=_style(cell))
                start = "    "


def _together(cells: Cells, width: int) -> tuple[Text, Cells]:
    """As many of a row's first cells as fit into one line, at least one if there is any; and the others."""
    from rich.text import Text

    count = 1
    while count < len(cells) and sum(cell.cell_len + 2 for _, cell in cells[: count + 1]) - 2 <= width:
        count += 1
    line = Text("  ").join(cell for _, cell in cells[:count])
    return line, cells[count:]


def _as_text(cell: RenderableType) -> Text:
    from rich.text import Text

    return cell if isinstance(cell, Text) else Text(str(cell))


def _plain(cell: RenderableType) -> str:
    return _as_text(cell).plain


def _style(cell: Text) -> str:
    return str(cell.style or next((span.style for span in cell.spans), ""))
