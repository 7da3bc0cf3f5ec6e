"""Chooses where the steps of a study write: in directories named after everything that their results are made of.

So a step that several cells share runs once, a step whose options have changed runs anew, and a result that is there
already equals the one that a run would make.
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

# Options that say how a command runs, not what it makes.
_NOT_MADE_OF = {"out", "overwrite", "dry_run"}


def place(steps: Sequence[Step], work: Path) -> list[Step]:
    """Give each step a directory of its own below ``work``, and name the other steps' directories in its options.

    Args:
        steps: the steps, each after those that it needs.
        work: the absolute directory for all results; it does not affect the names.
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
    """An option's value with the steps' new directories, also where it names something inside one of them."""
    if isinstance(value, list):
        return [_moved(item, moved) for item in value]
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    for old, new in moved.items():
        if text == old or text.startswith(f"{old}/"):
            return type(value)(new + text[len(old) :])
    return value
