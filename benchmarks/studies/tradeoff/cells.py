"""Cells, lines and tables of a page in Markdown, and the page that is filled with them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from benchmarks.studies.tradeoff.figures import Spread


def text(found: Spread) -> str:
    """A mean, with the lowest and the highest world where there are several."""
    return f"{found.mean:.1f}" if found.num_worlds < 2 else f"{found.mean:.1f} ({found.low:.0f} to {found.high:.0f})"


def signed(found: Spread) -> str:
    """A change, with half of its interval over worlds where there are several."""
    return f"{found.mean:+.1f}" if found.half is None else f"{found.mean:+.1f} ± {found.half:.1f}"


def interval(found: Spread) -> str:
    """A difference, with the ends of its interval over worlds where there are several."""
    if found.half is None:
        return f"{found.mean:+.1f}"
    return f"{found.mean:+.1f} [{found.mean - found.half:+.1f}, {found.mean + found.half:+.1f}]"


def head(*names: str) -> str:
    """The first two lines of a table."""
    return f"{row(*names)}\n{row('---', *('---:' for _ in names[1:]))}"


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def fill(page: str, tables: Mapping[str, str]) -> str:
    """The page with the tables in their places, which are between ``<!-- table: NAME -->`` and ``<!-- end -->``.

    Raises:
        KeyError: the page has a place for a table that there is none of.
    """
    return re.sub(
        r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)",
        lambda place: f"{place[1]}\n{tables[place[2]]}\n\n{place[3]}",
        page,
        flags=re.DOTALL,
    )
