"""``ogpsa clean``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.tools import CleanConfig
    from pipelines.core.leftovers import Leftover

_WORDS = {
    "unfinished": "unfinished: the same command would go on from it",
    "superseded": "of no use any more",
    "finished": "finished, but not in its place",
    "in use": "in use by a command",
}


def execute(config: CleanConfig) -> int:
    """Remove what was left behind, and say what is gone and what stays."""
    from ogpsa_cli import console
    from pipelines.commands import clean

    cleaned = clean.run(config, _agrees)
    if not (cleaned.removed or cleaned.kept or cleaned.untouched):
        console.say("nothing was left behind")
        return 0
    for each in cleaned.removed:
        console.say(f"removed: {_line(each)}")
    for each in (*cleaned.kept, *cleaned.untouched):
        console.say(f"kept: {_line(each)}, {_WORDS[each.kind]}")
    if any(each.kind == "unfinished" for each in cleaned.kept):
        console.hint(f"--yes removes unfinished work too:  ogpsa clean {shlex.quote(str(config.path))} --yes")
    _hint_at_finished(cleaned.untouched)
    return 0


def dry_run(config: CleanConfig) -> int:
    """List what was left behind."""
    from ogpsa_cli import console
    from pipelines.commands import clean

    found = clean.find(config)
    for each in found:
        console.say(f"{_line(each)}, {_WORDS[each.kind]}")
    if not found:
        console.say("nothing was left behind")
    _hint_at_finished(found)
    return 0


def _line(leftover: Leftover) -> str:
    from pipelines.inspecting.machine import size_text

    return f"{leftover.path}, {size_text(leftover.size_bytes)}"


def _hint_at_finished(found: Sequence[Leftover]) -> None:
    from ogpsa_cli import console

    for each in found:
        if each.kind == "finished":
            moved = console.command_text(["mv", each.path, each.place])
            console.hint(f"the same command puts it in its place; so does  {moved}")


def _agrees(unfinished: Sequence[Leftover]) -> bool:
    """Whether the person at the terminal agrees; where nobody is asked, nobody does."""
    from ogpsa_cli import console
    from pipelines.inspecting.machine import size_text

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    for each in unfinished:
        console.hint(f"{_line(each)}, {_WORDS[each.kind]}")
    size = size_text(sum(each.size_bytes for each in unfinished))
    sys.stderr.write(f"remove this unfinished work ({size})? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
