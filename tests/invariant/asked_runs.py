"""Runs that are asked for answers while they train, and are compared with runs that are not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# Engines that are asked, as many prompts as leave the last rank with a batch less.
ASKED, PROMPTS = ("data parallel", "zero3", "zero2 lora"), ("the one", "the other one", "the third", "four", "five")


def asking(directory: Path, name: str) -> dict[str, Any]:
    """The options of a run, of which those of some engines are asked; rank zero's work."""
    if not any(word in name for word in ASKED):
        return {}
    path = directory / "prompts.txt"
    path.write_text("".join(f"{text}\n" for text in PROMPTS))
    return {"sample_every": 3, "sample_prompts": path, "sample_tokens": 3}


def steps_asked(run: Path) -> list[int]:
    """The step of every answer, in the order of the file."""
    path = run / "samples.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def untimed(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the log without how long anything took."""
    return {key: value for key, value in line.items() if not re.search(r"train_runtime|_per_second", key)}
