"""Answers counted by two outcomes: those of two judges, or labels and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.evaluation.contract.verdict import OUTCOMES


@dataclass(frozen=True)
class Grid:
    """Answers counted by two outcomes.

    Attributes:
        columns: the outcomes of the columns that occur, as words.
        rows: the outcomes of the rows that occur, as words, each with its counts in the order of the columns.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


def grid_of(confusion: Mapping[tuple[str, str], int]) -> Grid:
    """Counts by two outcomes, of rows and of columns, as a grid in the usual order of outcomes."""
    rows = [name for name in OUTCOMES if any(one == name for one, _ in confusion)]
    columns = [name for name in OUTCOMES if any(other == name for _, other in confusion)]
    counts = [tuple(confusion.get((row, column), 0) for column in columns) for row in rows]
    words = [[name.replace("_", " ") for name in names] for names in (rows, columns)]
    return Grid(tuple(words[1]), tuple(zip(words[0], counts, strict=True)))
