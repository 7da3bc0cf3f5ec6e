"""The tables of ``docs/architecture.md``: every room with its sentence, written from the code."""

from __future__ import annotations

from tests.structure.code import PACKAGES, ROOT, read_modules
from tests.structure.table import read_table, sentence

FILE = ROOT / "docs" / "architecture.md"
_BEGIN, _END = "<!-- The rooms: made by python -m tests.structure page -->", "<!-- The end of the rooms -->"


def rooms_text() -> str:
    """One table for each package; rooms from the top to the bottom."""
    modules = read_modules()
    parts = []
    for package in PACKAGES:
        rows = [
            f"| `{room}` | {sentence(room, modules).replace('|', chr(92) + '|').replace('``', '`')} |"
            for room in read_table()
            if room.partition("/")[0] == package
        ]
        parts.append("\n".join([f"| {package} | what belongs there |", "| --- | --- |", *rows]))
    return "\n\n".join(parts)


def with_rooms(page: str) -> str:
    """A page with its tables written anew."""
    before, _, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, f"{FILE} has no place for the rooms"
    return f"{before}{_BEGIN}\n\n{rooms_text()}\n\n{_END}{after}"
