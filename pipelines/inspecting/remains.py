"""What commands left behind where the user is, as a finding of ``ogpsa doctor``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.core.leftovers import Leftover, leftovers_below
from pipelines.inspecting.machine import Finding, size_text

# Enough for a project; a home directory or a whole disk is not walked through.
_MOST_FOLDERS = 2000


def remains_findings() -> Iterator[Finding]:
    """What interrupted and superseded runs left below the working directory."""
    found = leftovers_below(Path(), most_folders=_MOST_FOLDERS)
    value, there = in_words(found), [each for each in found if each.kind != "in use"]
    why = "nobody uses it:  ogpsa clean . --dry-run  lists it,  ogpsa clean .  removes it" if there else ""
    yield Finding("machine", "left behind here", value, "info", why)


def in_words(found: Sequence[Leftover]) -> str:
    """How much was left behind: ``2 directories, 1.3 GB``."""
    there = [each for each in found if each.kind != "in use"]
    if not there:
        return "nothing"
    number = "1 directory" if len(there) == 1 else f"{len(there)} directories"
    return f"{number}, {size_text(sum(each.size_bytes for each in there))}"
