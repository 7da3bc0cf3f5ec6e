"""What a mask has of each tensor, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

LAYERS_FILE = "layers.parquet"


@dataclass(frozen=True)
class TensorRecord:
    """The row on one tensor.

    Attributes:
        parameter: its name.
        numel: the number of its elements.
        selected: how many of them are in the mask.
        share: their share.
        largest_score: its largest score; None for tensors that were not among the eligible ones.
        score_median: the median of its scores, to 1 % below.
        score_p90: the score that nine tenths do not exceed, to 1 % below.
        score_p99: the score that 99 of 100 do not exceed, to 1 % below.
    """

    parameter: str
    numel: int
    selected: int
    share: float
    largest_score: float | None
    score_median: float | None
    score_p90: float | None
    score_p99: float | None


_TYPES: dict[str, Any] = {
    "str": pa.string(), "int": pa.int64(), "float": pa.float64(), "float | None": pa.float64(),
}  # fmt: skip


def write_records(path: Path, records: Sequence[TensorRecord]) -> None:
    """Write them as Parquet, one row each, columns as in :class:`TensorRecord`."""
    schema = pa.schema([(field.name, _TYPES[str(field.type)]) for field in fields(TensorRecord)])
    pq.write_table(pa.Table.from_pylist([asdict(record) for record in records], schema=schema), path)


def read_records(path: Path) -> list[TensorRecord]:
    """What :func:`write_records` wrote."""
    return [TensorRecord(**row) for row in pq.read_table(path).to_pylist()]
