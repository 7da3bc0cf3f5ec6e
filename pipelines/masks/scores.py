"""Scores of weights as blocks of non-negative float32 numbers, read from disk or drawn, never held as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_registry.core.errors import ArtifactError, first_line
from pipelines.masks.parameters import Parameter
from pipelines.weights.read_ahead import Read
from pipelines.weights.stored import Checkpoint, Stored, check_finite, difference, has_rows
from pipelines.weights.writing import Layout

BLOCK_ELEMENTS = 1 << 18
"""Elements of a block: small enough that what is freed goes back to the system and is not kept for the next one."""


class Scores(Protocol):
    """Scores that can be read again and again, with the same result."""

    def reads(self, parameter: Parameter) -> Iterator[Read]:
        """What reads the scores of a flattened parameter: calls whose results, in order, are its blocks."""


@dataclass(frozen=True)
class Change:
    """How far each weight is from where it was: |theta_end - theta_start|, by two checkpoints, in float32."""

    start: Checkpoint
    end: Checkpoint

    def reads(self, parameter: Parameter) -> Iterator[Read]:
        """See :class:`Scores`."""
        end, start = self.end.need(parameter.name, parameter.shape), self.start.need(parameter.name, parameter.shape)
        for index, first, last in _row_blocks(parameter.shape):
            yield partial(_change, end, start, first, last, index)


def _change(end: Stored, start: Stored, first: int, last: int, index: int | None) -> Tensor:
    if not end.shape:
        return (end.read().float() - start.read().float()).abs_().view(-1)
    return difference(end, start, first, last, index=index).abs_().view(-1)


@dataclass(frozen=True)
class Magnitude:
    """The size of each weight: |theta|."""

    checkpoint: Checkpoint

    def reads(self, parameter: Parameter) -> Iterator[Read]:
        """See :class:`Scores`."""
        stored = self.checkpoint.need(parameter.name, parameter.shape)
        for index, first, last in _row_blocks(parameter.shape):
            yield partial(_magnitude, stored, first, last, index)


def _magnitude(stored: Stored, first: int, last: int, index: int | None) -> Tensor:
    weights = stored.read(first, last, index=index) if stored.shape else stored.read()
    block = weights.float().abs_().view(-1)
    # A sum that is finite needs no look at each value; one that is not says nothing about where.
    if not bool(torch.isfinite(block.sum())):
        check_finite(block, stored)
    return block


def _row_blocks(shape: tuple[int, ...]) -> Iterator[tuple[int | None, int, int]]:
    """The blocks of rows of each matrix of a stack; of anything else, without an index."""
    if not has_rows(shape):
        yield None, 0, shape[0] if shape else 1
        return
    rows = max(1, BLOCK_ELEMENTS // max(1, shape[-1]))
    matrices: list[int | None] = list(range(shape[0])) if len(shape) == 3 else [None]
    for index in matrices:
        for first in range(0, shape[-2], rows):
            yield index, first, min(first + rows, shape[-2])


@dataclass(frozen=True)
class Random:
    """Uniform numbers in (0, 1]. A weight's number depends on the seed, its parameter's name and its place alone."""

    seed: int

    def reads(self, parameter: Parameter) -> Iterator[Read]:
        """See :class:`Scores`."""
        for start, stop in _blocks(parameter.numel):
            yield partial(self._draw, parameter.name, start, stop)

    def _draw(self, name: str, start: int, stop: int) -> Tensor:
        own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        stream = np.random.Philox(key=self.seed % 2**64 | own << 64)
        stream.advance(start // 4)  # four numbers a step
        raw = stream.random_raw(stop - start)
        return torch.from_numpy(((raw >> np.uint64(40)).astype(np.float32) + 1) * np.float32(2.0**-24))


class Rows:
    """Scores that lie on disk as ``[1, n_t]`` float32 rows by parameter: a run's change, or what was computed before.

    Args:
        directory: the folder of the files.
        stem: the first part of the files' names.

    Raises:
        ArtifactError: the index cannot be read.
    """

    def __init__(self, directory: Path, stem: str) -> None:
        self._directory = directory
        try:
            index = json.loads((directory / Layout(stem).index).read_text(encoding="utf-8"))
            self._files: Mapping[str, str] = index["weight_map"]
        except (OSError, ValueError, KeyError) as error:
            raise self._unreadable(error) from error

    def numels(self) -> dict[str, int]:
        """The number of scores of each parameter."""
        found = {}
        try:
            for name, file in self._files.items():
                with safe_open(self._directory / file, framework="pt") as opened:
                    found[name] = int(opened.get_slice(name).get_shape()[-1])
        except (OSError, SafetensorError) as error:
            raise self._unreadable(error) from error
        return found

    def reads(self, parameter: Parameter) -> Iterator[Read]:
        """See :class:`Scores`."""
        for start, stop in _blocks(parameter.numel):
            yield partial(self._read, parameter.name, start, stop)

    def _read(self, name: str, start: int, stop: int) -> Tensor:
        try:
            with safe_open(self._directory / self._files[name], framework="pt") as file:
                scores: Tensor = file.get_slice(name)[:, start:stop]
                return scores.abs().view(-1)
        except (OSError, KeyError, SafetensorError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"the scores in '{self._directory}' cannot be read: {first_line(error)}",
            where=str(self._directory),
            fix="make the run again, or copy it from where it is whole",
        )


def _blocks(numel: int) -> Iterator[tuple[int, int]]:
    for start in range(0, numel, BLOCK_ELEMENTS):
        yield start, min(start + BLOCK_ELEMENTS, numel)
