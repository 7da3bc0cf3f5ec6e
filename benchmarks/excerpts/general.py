"""Excerpts of general sets: short rows, drawn with a seed, the sides for training and for measuring kept apart."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Row = dict[str, Any]
SIDES: Final = {"train": 200, "validation": 60, "test": 100}
"""The sides of each excerpt, and how many rows each has."""
MOST_ASKED: Final = 60
MOST_ANSWERED: Final = 70
"""Words of a request and of an answer: what a small model on a laptop gets through in time."""

_DECLINES: Final = re.compile(
    r"\b(as an ai|language model|i'm sorry|i am sorry|i cannot|i can't|unfortunately)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Excerpt:
    """A set to take rows of.

    Attributes:
        name: the name of the excerpt's files.
        files: the files that each side is drawn from; sides of the same file never share a row.
        read: the rows of a file.
        keep: the columns to keep.
        asked: the text of a row's request.
        answered: the text of its answer.
    """

    name: str
    files: Mapping[str, str]
    read: Callable[[Path], Iterable[Row]]
    keep: tuple[str, ...]
    asked: Callable[[Row], str]
    answered: Callable[[Row], str]


def _json(path: Path) -> list[Row]:
    return list(json.loads(path.read_text(encoding="utf-8")))


def _json_lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _without_hallucinations(path: Path) -> list[Row]:
    return [row for row in _json_lines(path) if row["hallucination"] == "no"]


EXCERPTS: Final = (
    Excerpt(
        "alpaca", dict.fromkeys(SIDES, "alpaca_en_demo.json"), _json, ("instruction", "input", "output"),
        lambda row: f"{row['instruction']} {row['input']}", lambda row: row["output"],
    ),
    Excerpt(
        "halueval", dict.fromkeys(SIDES, "halueval_general.jsonl"), _without_hallucinations,
        ("user_query", "chatgpt_response"), lambda row: row["user_query"], lambda row: row["chatgpt_response"],
    ),
    Excerpt(
        "gsm8k", {"train": "gsm8k_train.jsonl", "validation": "gsm8k_test.jsonl", "test": "gsm8k_test.jsonl"},
        _json_lines, ("question", "answer"), lambda row: row["question"], lambda row: row["answer"],
    ),
)  # fmt: skip


def draw(excerpt: Excerpt, folder: Path, seed: int = 0) -> dict[str, list[Row]]:
    """The rows of each side.

    Rows are short, answer what they are asked, and no request is asked twice on any side.

    Raises:
        ValueError: a file has too few such rows.
    """
    seen: set[str] = set()
    pools: dict[str, list[Row]] = {}
    for name in dict.fromkeys(excerpt.files.values()):
        rows = [row for row in excerpt.read(folder / name) if _is_short(excerpt, row)]
        random.Random(seed).shuffle(rows)
        pools[name] = []
        for row in rows:
            if _key(excerpt, row) not in seen:
                seen.add(_key(excerpt, row))
                pools[name].append(row)
    sides = {}
    for side, count in SIDES.items():
        pool = pools[excerpt.files[side]]
        if len(pool) < count:
            raise ValueError(f"{excerpt.name} has {len(pool)} rows for its side '{side}', which takes {count}")
        sides[side] = [{name: row[name] for name in excerpt.keep} for row in pool[:count]]
        del pool[:count]
    return sides


def _is_short(excerpt: Excerpt, row: Row) -> bool:
    asked, answered = excerpt.asked(row), excerpt.answered(row)
    return (
        3 <= len(asked.split()) <= MOST_ASKED
        and 6 <= len(answered.split()) <= MOST_ANSWERED
        and not _DECLINES.search(answered)
    )


def _key(excerpt: Excerpt, row: Row) -> str:
    return " ".join(excerpt.asked(row).lower().split())
