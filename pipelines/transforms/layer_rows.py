"""The share removed from every group at every logged step, kept in few bytes: a run may log thousands of steps."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class LayerRows(Sequence[tuple[int, str, float]]):
    """Rows of (step, group, share removed), one for each group of a logged step.

    Only the shares are kept for each row, eight bytes each; as tuples, rows of a large model would take hundreds of
    megabytes in a long run.

    Args:
        names: the names of the groups, the same at every step.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._steps, self._shares = array("q"), array("d")

    def add(self, step: int, shares: Iterable[float]) -> None:
        """Add the rows of a step: the share of every group, in the order of the names."""
        self._steps.append(step)
        self._shares.extend(shares)
        assert len(self._shares) == len(self._steps) * len(self._names)

    def restore(self, steps: Sequence[int], shares: Sequence[float]) -> None:
        """Take the rows that a checkpoint holds, in the order of the rows, in place of the present ones."""
        self._steps = array("q", steps[:: max(1, len(self._names))])
        self._shares = array("d", shares)

    def write(self, path: Path) -> None:
        """Write the rows as a Parquet file with the columns ``step``, ``parameter`` and ``removed``.

        Args:
            path: the file.
        """
        groups = len(self._names)
        names = pa.array(self._names, pa.string()).take(np.tile(np.arange(groups), len(self._steps)))
        steps = np.repeat(np.array(self._steps, np.int64), groups)
        removed = np.array(self._shares, np.float64)
        pq.write_table(pa.table({"step": steps, "parameter": names, "removed": removed}), path)
        # Arrow keeps what was freed for its next table, which is a larger one at every checkpoint of a long run.
        del names
        pa.default_memory_pool().release_unused()

    def __len__(self) -> int:
        return len(self._shares)

    @overload
    def __getitem__(self, index: int) -> tuple[int, str, float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, str, float]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, str, float] | list[tuple[int, str, float]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        share = self._shares[index]
        step, name = divmod(index % len(self), len(self._names))
        return self._steps[step], self._names[name], share
