"""What data sets become in training, for ``--dry-run``."""

from __future__ import annotations

from dataclasses import dataclass

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class DataPlan:
    """What the data sets become.

    Attributes:
        num_samples: of an epoch: rows, or packed sequences.
        lines: of the plan.
    """

    num_samples: int
    lines: Rows
