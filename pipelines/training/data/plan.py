"""The plan of what data sets become in training, for ``--dry-run``."""

from __future__ import annotations

from dataclasses import dataclass

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class DataPlan:
    """The samples that the data sets become in training.

    Attributes:
        num_samples: the number of samples in an epoch: rows, or packed sequences.
        lines: the lines that the plan shows.
    """

    num_samples: int
    lines: Rows
