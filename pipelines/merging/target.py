"""A result of a merge while it is being made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.merging.layer_records import LayerRecord


@dataclass
class Target:
    """One result of a merge.

    Attributes:
        threshold: the rho below which layers are repaired; None for methods without criterion.
        directory: where its weights go.
        records: what was done, filled while merging.
        shapes: rank and scaling of each module of an output adapter, filled while merging.
    """

    threshold: float | None
    directory: Path
    records: list[LayerRecord] = field(default_factory=list)
    shapes: dict[str, tuple[int, float]] = field(default_factory=dict)
