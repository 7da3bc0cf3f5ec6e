"""What tokenised rows have for every token beside ids and labels: a column of it, and collators that know it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import datasets
import pyarrow as pa


def with_column(rows: datasets.Dataset, name: str, column: pa.ListArray) -> datasets.Dataset:
    """Tokenised rows with a further column of lists of numbers, one list for each row."""
    table = rows.with_format("arrow")[:]
    digest = hashlib.sha256(column.flatten().to_numpy().tobytes())
    digest.update(rows._fingerprint.encode())
    # The fingerprint is given because the library would otherwise pickle and hash all rows to compute it.
    return datasets.Dataset(table.append_column(name, column), fingerprint=digest.hexdigest()[:16])


class CollatorAround:
    """A collator that does something beside what another one does.

    Args:
        inner: the other collator, such as TRL's, which pads on the right or joins rows.
    """

    def __init__(self, inner: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self._inner: Any = inner

    @property
    def padding_free(self) -> bool:
        """Whether rows are joined to one sequence."""
        return bool(getattr(self._inner, "padding_free", False))

    @padding_free.setter
    def padding_free(self, value: bool) -> None:
        self._inner.padding_free = value
