"""Books: tables of texts for the page's browser, packed into one inert block of characters.

A book has a row for each prompt and a column for each run, or for each step of a training run. Texts that occur often
are stored once. The block is compressed and written in base64: whatever an answer holds, it cannot end the block, and
no part of the page can run it. The browser's script puts texts into the document as text alone.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_registry.core.visible import visible


@dataclass(frozen=True)
class Cell:
    """An answer in a book.

    Attributes:
        column: the place of its column.
        answer: the text; None where it was left out of the page.
        state: what came of it, in a word or two, such as ``refused``; empty where nobody judged it.
        reason: what the verdict rests on.
        note: more to know, such as that it was cut off.
        is_covered: whether the page covers it until the reader uncovers it.
    """

    column: int
    answer: str | None
    state: str = ""
    reason: str = ""
    note: str = ""
    is_covered: bool = False


@dataclass(frozen=True)
class Row:
    """A prompt and what came of it.

    Attributes:
        suite: the suite, or another heading under which rows are filtered.
        name: what tells it from others of its suite.
        group: its group and category.
        prompt: the prompt.
        expected: the right answer, where there is one.
        cells: the answers, at most one for each column.
    """

    suite: str
    name: str
    group: str
    prompt: str
    expected: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Book:
    """Rows under columns.

    Attributes:
        title: what the reader chooses it by.
        kind: ``answers`` of runs, or ``samples`` over steps.
        columns: names of the columns.
        rows: the rows in the order in which they are shown.
    """

    title: str
    kind: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def pack(books: Sequence[Book]) -> str:
    """All books as one block: base64 of compressed JSON; the same books give the same block."""
    strings: dict[str, int] = {}

    def place(text: str, *, block: bool = False) -> int:
        return strings.setdefault(visible(text, block=block), len(strings))

    packed: list[dict[str, Any]] = []
    for book in books:
        rows = [
            [
                place(row.suite), place(row.name), place(row.group), place(row.prompt, block=True),
                place(row.expected, block=True),
                [
                    number
                    for cell in row.cells
                    for number in (
                        cell.column, -1 if cell.answer is None else place(cell.answer, block=True), place(cell.state),
                        place(cell.reason, block=True), place(cell.note), int(cell.is_covered),
                    )
                ],
            ]
            for row in book.rows
        ]  # fmt: skip
        columns = [visible(name) for name in book.columns]
        packed.append({"title": visible(book.title), "kind": book.kind, "columns": columns, "rows": rows})
    text = json.dumps({"strings": list(strings), "books": packed}, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
