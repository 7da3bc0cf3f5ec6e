"""Answered items, stored one row each, so that every figure can be traced, judged again and compared in pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data_registry.core.errors import ArtifactError

ANSWERS_FILE = "answers.parquet"
_NUMBERS = ("score", "weight")


@dataclass(frozen=True)
class AnsweredItem:
    """One item as it is stored.

    Attributes:
        suite: as in the results.
        id: unique in the suite and stable.
        group: such as a skill.
        prompt: what the model was given: text with the template, or the last question where a given answer is scored.
        answer: the model's answer, or the given one.
        expected: the answer that counts as right, where there is a single one.
        score: what the figures are means of.
        weight: the item's weight in these means.
    """

    suite: str
    id: str
    group: str
    prompt: str
    answer: str
    expected: str | None
    score: float
    weight: float = 1.0


def write_answers(folder: Path, groups: Iterable[Sequence[AnsweredItem]]) -> None:
    """Write ``answers.parquet``, group after group."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema(
        [(field.name, pa.float64() if field.name in _NUMBERS else pa.string()) for field in fields(AnsweredItem)]
    )
    with parquet.ParquetWriter(folder / ANSWERS_FILE, schema, compression="zstd") as writer:
        for items in groups:
            writer.write_table(pa.Table.from_pylist([asdict(item) for item in items], schema))


def read_answers(folder: Path) -> list[AnsweredItem]:
    """The items of an artifact of ``evaluate``, in order.

    Raises:
        ArtifactError: the file is missing or no table of answers.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = folder / ANSWERS_FILE
    try:
        rows = parquet.read_table(file, columns=[field.name for field in fields(AnsweredItem)]).to_pylist()
        return [AnsweredItem(**row) for row in rows]
    except (OSError, TypeError, pa.ArrowException) as error:
        raise ArtifactError(f"'{file}' cannot be read: {error}", where=str(file)) from error
