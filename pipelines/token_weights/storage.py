"""Token weights on disk: a Parquet file with one line for each answer, its tokens and their scores and weights.

``token-weights.parquet`` has the columns ``row`` int64, the number of the row in its data set from 0, where rows that
were left out as too long do not count; ``side`` string, ``answer`` (of rows for SFT), ``chosen`` or ``rejected``;
``ids`` list of int32, the tokens of the answer as training labels them, the end of turn included; ``score`` and
``weight``, lists of float32 of the same length; and ``ref_logps``, a list of float32 of the same length, or null where
the rule computes none: the log-probabilities of the tokens by the model that the rule compares with.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data_registry.core.errors import ArtifactError, first_line
from pipelines.token_weights.description import DESCRIPTION_FILE, TokenWeightsDescription

FILE: Final = "token-weights.parquet"
SIDES: Final = ("answer", "chosen", "rejected")
Numbers = npt.NDArray[np.float32]
SCHEMA: Final = pa.schema(
    {
        "row": pa.int64(),
        "side": pa.string(),
        "ids": pa.list_(pa.int32()),
        "score": pa.list_(pa.float32()),
        "weight": pa.list_(pa.float32()),
        "ref_logps": pa.list_(pa.float32()),
    }
)
_GROUP_LINES: Final = 1024


@dataclass(frozen=True)
class WeightedAnswer:
    """The tokens of one answer with their weights.

    Attributes:
        row: the number of the row.
        side: one of ``SIDES``.
        ids: the tokens of the answer, as training labels them.
        score: float32 ``[len(ids)]``, the raw scores.
        weight: float32 ``[len(ids)]``, the weights.
        ref_logps: float32 ``[len(ids)]``, the log-probabilities by the model that the rule compares with, or None.
    """

    row: int
    side: str
    ids: list[int]
    score: Numbers
    weight: Numbers
    ref_logps: Numbers | None = None


def write_token_weights(folder: Path, description: TokenWeightsDescription, answers: Iterable[WeightedAnswer]) -> None:
    """Write the files of the artifact.

    Args:
        folder: where to write.
        description: what is kept with the weights.
        answers: the answers; those of one side come in the order of their rows, none left out.
    """
    (folder / DESCRIPTION_FILE).write_text(description.model_dump_json(indent=1) + "\n", encoding="utf-8")
    with pq.ParquetWriter(folder / FILE, SCHEMA) as file:
        waiting = iter(answers)
        while lines := list(itertools.islice(waiting, _GROUP_LINES)):
            columns: dict[str, list[Any]] = {name: [getattr(line, name) for line in lines] for name in SCHEMA.names}
            file.write_table(pa.table(columns, schema=SCHEMA))


def read_table(folder: Path) -> pa.Table:
    """What :func:`write_answers` wrote, checked to be of this layout.

    Raises:
        ArtifactError: it cannot be read, or is not of this layout.
    """
    try:
        table = pq.ParquetFile(folder / FILE).read()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"token weights cannot be read: {first_line(error)}", where=str(folder / FILE)) from error
    if not table.schema.equals(SCHEMA):
        raise ArtifactError("these are no token weights: the columns are others", where=str(folder / FILE))
    for name in ("row", "side", "ids", "score", "weight"):
        if table.column(name).null_count:
            raise ArtifactError(f"the column '{name}' lacks values", where=str(folder / FILE))
    return table
