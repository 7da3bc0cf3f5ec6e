"""Weights of a model on disk, read some rows at a time; single or sharded safetensors, any floating dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_registry.core.documents import suggest
from data_registry.core.errors import InputError, first_line
from pipelines.models.architecture import Architecture, architecture_of
from pipelines.models.files import (
    CONFIG,
    WEIGHTS,
    WEIGHTS_INDEX,
    check_unquantised,
    check_weight_files,
    read_json,
)
from pipelines.models.reference import ModelSource, model_directory
from pipelines.weights.read_ahead import read_ahead

BLOCK_ELEMENTS = 1 << 20
"""Elements of a block of rows. Part of the arithmetic: sums are taken block by block."""

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""The floating dtypes by safetensors' names."""

ALL_DTYPES: Mapping[str, torch.dtype] = {
    **DTYPES, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies.

    Attributes:
        name: the tensor's name in the file.
        file: the safetensors file.
        dtype: safetensors' name of it, such as ``"BF16"``.
        shape: its shape.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def is_float(self) -> bool:
        """Whether it holds numbers that can be merged."""
        return self.dtype in DTYPES

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype, floating or not.

        Raises:
            InputError: it is not known here.
        """
        if self.dtype not in ALL_DTYPES:
            raise InputError(f"'{self.name}' is stored as {self.dtype}, which is not known here", where=str(self.file))
        return ALL_DTYPES[self.dtype]

    @property
    def numel(self) -> int:
        """Number of elements."""
        total = 1
        for size in self.shape:
            total *= size
        return total

    def read(self, start: int | None = None, stop: int | None = None, *, index: int | None = None) -> Tensor:
        """Rows ``start`` to ``stop``, or everything; of a stack of matrices, those of matrix ``index``.

        Each call maps the file anew, so that its pages do not stay in this process's memory.

        Returns:
            The rows in the stored dtype, a copy.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            with safe_open(self.file, framework="pt") as file:
                if start is None:
                    return file.get_tensor(self.name).clone()
                assert stop is not None
                return _rows(file, self.name, start, stop, index).clone()
        except (SafetensorError, OSError) as error:
            raise _unreadable(self, error) from error


def has_rows(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape is a matrix or a stack of them; vectors and kernels of images are read whole."""
    return len(shape) in (2, 3)


def row_blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The blocks of rows in which a tensor of this shape is read; one block where it :func:`has_rows` not."""
    if not has_rows(shape):
        yield 0, shape[0] if shape else 1
        return
    rows = max(1, BLOCK_ELEMENTS // max(1, shape[-1]))
    for start in range(0, shape[-2], rows):
        yield start, min(start + rows, shape[-2])


def read_blocks(stored: Stored, workers: int) -> Iterator[Tensor]:
    """The rows of a tensor in blocks, read ahead by ``workers`` threads; all at once where it is no matrix."""
    if len(stored.shape) != 2:
        yield stored.read()
        return
    reads = (lambda start=start, stop=stop: stored.read(start, stop) for start, stop in row_blocks(stored.shape))
    with read_ahead(reads, workers) as blocks:
        yield from blocks


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a model.

    Attributes:
        source: the model that the weights belong to.
        directory: where its files lie.
        stored: its tensors by name, in alphabetical order.
        config: its configuration.
    """

    source: ModelSource
    directory: Path
    stored: Mapping[str, Stored]
    config: Mapping[str, Any]

    @cached_property
    def architecture(self) -> Architecture:
        """What the model's own code says of its weights; of a model that transformers does not know, nothing."""
        return architecture_of(self.directory, self.stored) or Architecture()

    @cached_property
    def _by_name(self) -> Mapping[str, Stored]:
        """The tensors by the names that they have in the model."""
        return {self.architecture.name_of(name): stored for name, stored in self.stored.items()}

    def find(self, name: str) -> Stored | None:
        """The tensor of that name, on disk or in the model, or the one that it is tied to; None if there is none."""
        if name in self.stored:
            return self.stored[name]
        own = self.architecture.name_of(name)
        names = [own, *sorted(self.architecture.sharing(own))]
        return next((self._by_name[name] for name in names if name in self._by_name), None)

    @property
    def is_known(self) -> bool:
        """Whether transformers knows the model's architecture."""
        return self.architecture != Architecture()

    def name_of(self, name: str) -> str:
        """What a tensor on disk is called in the model, by which those of other checkpoints are found."""
        return self.architecture.name_of(name)

    def sharing(self, name: str) -> str | None:
        """Another name of the same weight in the model; None where it is no other module's."""
        return next(iter(sorted(self.architecture.sharing(self.architecture.name_of(name)))), None)

    def is_transposed(self, name: str) -> bool:
        """Whether a tensor on disk is stored as ``[in, out]``, as far as the architecture is known."""
        return self.architecture.name_of(name) in self.architecture.transposed

    def need(self, name: str, shape: tuple[int, ...] | None = None) -> Stored:
        """The tensor of that name.

        Raises:
            InputError: there is none, it holds no floating numbers, or its shape is another.
        """
        found = self.find(name)
        if found is None:
            raise InputError(
                f"'{self.source.reference}' has no weight '{name}'{suggest(name, list(self.stored))}",
                where=str(self.directory),
                fix="layers are paired by name: use models of the same architecture",
            )
        if not found.is_float:
            raise InputError(
                f"'{name}' of '{self.source.reference}' is stored as {found.dtype}, which is no floating number",
                where=str(found.file),
                fix="use the unquantised model",
            )
        if shape is not None and found.shape != shape:
            raise InputError(
                f"'{name}' is {list(found.shape)} in '{self.source.reference}' and should be {list(shape)}",
                where=str(found.file),
                fix="use models of the same architecture and size",
            )
        return found


def open_checkpoint(source: ModelSource) -> Checkpoint:
    """Read what tensors a model has, without their values.

    Raises:
        InputError: files are missing, damaged or pickled, the index does not fit them, or weights are quantised.
    """
    directory = model_directory(source)
    check_weight_files(directory)
    config = read_json(directory / CONFIG) if (directory / CONFIG).is_file() else {}
    check_unquantised(config, directory)
    stored = {}
    files = _files(directory)
    placed = set().union(*files.values())
    for file, expected in files.items():
        found = read_header(directory / file)
        missing = sorted(expected - set(found))
        if missing:
            raise InputError(
                f"'{file}' lacks {len(missing)} weights that the index places in it",
                where=", ".join(missing[:3]) + (" ..." if len(missing) > 3 else ""),
                fix="copy or download the model again",
            )
        # What the index does not name is loaded too, as by transformers; what it places elsewhere counts there.
        stored.update({name: each for name, each in found.items() if name in expected or name not in placed})
    return Checkpoint(source, directory, dict(sorted(stored.items())), config)


def _files(directory: Path) -> dict[str, set[str]]:
    """Weight files with the tensors that an index expects in them; no tensors where there is no index."""
    if (directory / WEIGHTS).is_file():
        return {WEIGHTS: set()}
    expected: dict[str, set[str]] = {}
    for name, file in read_json(directory / WEIGHTS_INDEX)["weight_map"].items():
        expected.setdefault(file, set()).add(name)
    return expected


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file.

    Raises:
        InputError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return {
                name: Stored(name, path, str(part.get_dtype()), tuple(part.get_shape())) for name, part in parts.items()
            }
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"the weight file '{path.name}' is damaged: {first_line(error)}",
            where=str(path),
            fix="copy or download it again",
        ) from error


def check_finite(tensor: Tensor, stored: Stored) -> None:
    """Refuse weights with NaN or infinity.

    Raises:
        InputError: naming tensor and file.
    """
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise InputError(
            f"{bad} values of '{stored.name}' are NaN or infinite",
            where=str(stored.file),
            fix="use a checkpoint from before the training diverged",
        )


def difference(left: Stored, right: Stored, start: int, stop: int, *, index: int | None = None) -> Tensor:
    """Rows of ``left - right`` in float32.

    Raises:
        InputError: either has values that are not finite.
    """
    try:
        # Views of the mapped files: each value is copied once, into the difference.
        with safe_open(left.file, framework="pt") as one, safe_open(right.file, framework="pt") as other:
            block = _subtract(_rows(one, left.name, start, stop, index), _rows(other, right.name, start, stop, index))
    except (SafetensorError, OSError) as error:
        raise _unreadable(left, error) from error
    # A sum that is finite needs no look at each value; one that is not says nothing about where.
    if not bool(torch.isfinite(block.sum())):
        check_finite(left.read(start, stop, index=index).float(), left)
        check_finite(right.read(start, stop, index=index).float(), right)
    return block


def _subtract(left: Tensor, right: Tensor) -> Tensor:
    """``left - right`` in float32, a new tensor, with no copy of ``right`` where its dtype allows that."""
    if right.dtype.itemsize == 1:
        right = right.float()  # Float8 takes part in no arithmetic.
    if left.dtype == torch.float32:
        return torch.sub(left, right).float()
    return left.float().sub_(right)


def _rows(file: Any, name: str, start: int, stop: int, index: int | None) -> Tensor:
    part = file.get_slice(name)
    return part[start:stop] if index is None else part[index : index + 1, start:stop][0]


def _unreadable(stored: Stored, error: Exception) -> InputError:
    return InputError(
        f"'{stored.file.name}' cannot be read: {first_line(error)}",
        where=f"{stored.name} in {stored.file}",
        fix="copy or download the model again",
    )
