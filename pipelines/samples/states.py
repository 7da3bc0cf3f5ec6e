"""States on disk: what a model's head reads at every position of rows, in the type in which the model gives it.

``states.safetensors`` has, for the T positions of all rows one after the other, ``states`` ``[T, hidden]``; ``starts``
``[rows + 1]`` int64: the positions of row i are ``starts[i]`` to ``starts[i + 1]``; and ``mean_square``, a float64
scalar, the mean of the squares of all numbers in ``states``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from pipelines.weights.writing import TensorFile

STATES_FILE: Final = "states.safetensors"


def write_states(folder: Path, sizes: Sequence[int], rows: Callable[[], Iterator[Mapping[str, Tensor]]]) -> None:
    """Write the states of all rows, one row in memory at a time.

    Args:
        folder: the folder of the artifact.
        sizes: the number of positions of each row.
        rows: gives ``states`` ``[positions, hidden]`` of the rows in order, from the first one again at each call.
    """
    squares, width, dtype = 0.0, 0, torch.float32
    for row in rows():
        squares += float(row["states"].double().square().sum())
        width, dtype = row["states"].shape[-1], row["states"].dtype
    total = sum(sizes)
    with TensorFile(folder / STATES_FILE, ["starts", "mean_square", "states"]) as file:
        file.add("starts", torch.tensor([0, *itertools.accumulate(sizes)], dtype=torch.int64))
        file.add("mean_square", torch.tensor(squares / (total * width), dtype=torch.float64))
        file.begin("states", dtype, (total, width))
        for row in rows():
            file.write(row["states"])


class StoredStates:
    """The states of rows, read by rows from a memory-mapped file.

    Args:
        folder: the artifact.

    Attributes:
        mean_square: the mean of the squares of all numbers.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._file = safe_open(folder / STATES_FILE, framework="pt")
        self._starts = self._file.get_tensor("starts")
        self._states = self._file.get_slice("states")
        self.mean_square = float(self._file.get_tensor("mean_square"))

    def row(self, number: int) -> Tensor:
        """The states ``[positions, hidden]`` of one row."""
        states: Tensor = self._states[int(self._starts[number]) : int(self._starts[number + 1])]
        return states
