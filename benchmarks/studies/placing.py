"""Where the steps of a study write: in places named after everything that they are made of.

What several cells have in common is made once, a step whose options have changed is made anew, and what is there is
what would be made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.core.config import CommandConfig
from pipelines.recipes.chain import Step

# How a command runs, not what it makes.
_NOT_MADE_OF = {"out", "overwrite", "dry_run"}


def place(steps: Sequence[Step], work: Path) -> list[Step]:
    """The same steps, each with a place of its own below ``work`` and the others' places in its options.

    Args:
        steps: in order, so that each comes after those that it needs.
        work: an absolute directory; it is not part of the names.
    """
    moved: dict[str, str] = {}
    placed = []
    for step in steps:
        values = {name: _moved(value, moved) for name, value in step.config if name != "out"}
        config = step.config.model_copy(update=values)
        target = work / "made" / f"{step.name}-{_digest(config, work)}"
        moved[str(step.out)] = str(target)
        placed.append(replace(step, config=config.model_copy(update={"out": target})))
    return placed


def _digest(config: CommandConfig, work: Path) -> str:
    made_of = json.dumps(config.model_dump(mode="json", exclude=_NOT_MADE_OF), sort_keys=True)
    return hashlib.sha256(made_of.replace(f"{work}/", "").encode()).hexdigest()[:10]


def _moved(value: Any, moved: Mapping[str, str]) -> Any:
    """A value of an option with the new places of steps, also where it names something inside one."""
    if isinstance(value, list):
        return [_moved(item, moved) for item in value]
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    for old, new in moved.items():
        if text == old or text.startswith(f"{old}/"):
            return type(value)(new + text[len(old) :])
    return value
