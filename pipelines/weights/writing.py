"""Writing safetensors one tensor, or some rows of one, at a time; files depend on the tensors alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from pipelines.weights.stored import ALL_DTYPES

_NAMES = {dtype: name for name, dtype in ALL_DTYPES.items()}
_ALIGNMENT = 8

MAX_FILE_BYTES = 1 << 30
"""Size of a file of what nobody but ogpsa reads: a basis, a checkpoint."""


class TensorFile:
    """A safetensors file that is written from front to back; whole once closed without an exception.

    Room for the header is kept at the front, since shapes may be known only when the tensors come; the format allows
    to fill what is left of it with spaces.

    Args:
        path: the file that is written.
        names: the names of all tensors that may come, to know how much room the header needs.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path = path
        self._header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        self._offset = 0
        room = 64 + sum(len(json.dumps(name)) + 160 for name in names)
        self._room = -(-room // _ALIGNMENT) * _ALIGNMENT
        self._open: tuple[str, str, list[int], int, int] | None = None
        self._stream = path.open("wb")
        self._stream.write(b"\0" * (8 + self._room))

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stream:
            if kind is None:
                self._finish()

    def begin(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
        """Announce the next tensor; its rows follow."""
        assert name not in self._header
        self._end()
        num_bytes = dtype.itemsize
        for size in shape:
            num_bytes *= size
        self._open = (name, _NAMES[dtype], list(shape), self._offset, self._offset + num_bytes)

    def write(self, rows: Tensor) -> None:
        """Append rows of the tensor that was announced last, in its dtype."""
        assert self._open is not None
        assert _NAMES[rows.dtype] == self._open[1]
        data = rows.contiguous().reshape(-1).view(torch.uint8).numpy()
        self._stream.write(data.data)
        self._offset += data.nbytes

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a whole tensor."""
        self.begin(name, tensor.dtype, tensor.shape)
        self.write(tensor)

    def _end(self) -> None:
        if self._open is None:
            return
        name, dtype, shape, start, stop = self._open
        assert self._offset == stop, f"{name} has {self._offset - start} of {stop - start} bytes"
        self._header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
        self._open = None

    def _finish(self) -> None:
        self._end()
        header = json.dumps(self._header, separators=(",", ":")).encode()
        assert len(header) <= self._room
        self._stream.seek(0)
        self._stream.write(self._room.to_bytes(8, "little") + header.ljust(self._room))


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that will be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Its size."""
        total = self.dtype.itemsize
        for size in self.shape:
            total *= size
        return total


@dataclass(frozen=True)
class Layout:
    """How files of tensors are called: ``STEM-00001-of-00002.safetensors`` and ``STEM.safetensors.index.json``.

    Attributes:
        stem: the first part of all names.
        lone: what fits into one file is called ``STEM.safetensors`` and has no index.
        metadata: what the index says beside the total size.
    """

    stem: str
    lone: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    def file(self, number: int, count: int) -> str:
        """The name of one of ``count`` files, from 0."""
        if self.lone and count == 1:
            return f"{self.stem}.safetensors"
        return f"{self.stem}-{number + 1:05d}-of-{count:05d}.safetensors"

    @property
    def index(self) -> str:
        """The name of the index."""
        return f"{self.stem}.safetensors.index.json"


MODEL = Layout("model", lone=True)
"""As transformers names the weights of a model."""


class ShardedFiles:
    """Files of bounded size with their index, written one tensor after another, or some rows of one.

    Nothing is held: a tensor goes to its file at once. That what was written lasts is the artifact's business.

    Args:
        directory: the folder of the files.
        tensors: everything that will be written, in that order; of several dtypes, in that of :func:`writing_order`.
        max_file_bytes: size above which a file is closed.
        layout: what the files are called.
    """

    def __init__(
        self, directory: Path, tensors: Sequence[PlannedTensor], max_file_bytes: int, layout: Layout = MODEL
    ) -> None:
        self._directory, self._layout = directory, layout
        self._shards = _split(tensors, max_file_bytes)
        self._total = sum(tensor.num_bytes for tensor in tensors)
        self._number = 0
        self._left = 0
        self._file: TensorFile | None = None

    def __enter__(self) -> ShardedFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.__exit__(kind, error, trace)
        if kind is None:
            assert self._number == len(self._shards)
            assert self._left == 0
            self._write_index()

    def begin(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
        """Announce the next tensor, which must be the next of the plan."""
        if self._left == 0:
            if self._file is not None:
                self._file.__exit__(None, None, None)
            names = [tensor.name for tensor in self._shards[self._number]]
            self._file = TensorFile(self._directory / self._name(self._number), names)
            self._number, self._left = self._number + 1, len(names)
        expected = self._shards[self._number - 1][-self._left]
        assert (name, dtype, tuple(shape)) == (expected.name, expected.dtype, expected.shape)
        self._left -= 1
        assert self._file is not None
        self._file.begin(name, dtype, shape)

    def write(self, rows: Tensor) -> None:
        """Append rows of the tensor that was announced last."""
        assert self._file is not None
        self._file.write(rows)

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a whole tensor, the next of the plan."""
        self.begin(name, tensor.dtype, tensor.shape)
        self.write(tensor)

    def _name(self, number: int) -> str:
        return self._layout.file(number, len(self._shards))

    def _write_index(self) -> None:
        if self._layout.lone and len(self._shards) == 1:
            return
        weight_map: Mapping[str, str] = {
            tensor.name: self._name(number) for number, shard in enumerate(self._shards) for tensor in shard
        }
        metadata = {**self._layout.metadata, "total_size": self._total}
        index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
        (self._directory / self._layout.index).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one file of whole tensors that are at hand, of any dtypes and on any devices, one after another."""
    plan = writing_order([PlannedTensor(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()])
    with TensorFile(path, list(tensors)) as file:
        for planned in plan:
            file.add(planned.name, tensors[planned.name].to("cpu"))


def writing_order(tensors: Sequence[PlannedTensor]) -> list[PlannedTensor]:
    """Wide dtypes first, so that every tensor is aligned in its file; then by depth and name."""
    return sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, natural(tensor.name)))


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key by which ``layers.2`` comes before ``layers.10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _split(tensors: Sequence[PlannedTensor], max_file_bytes: int) -> list[list[PlannedTensor]]:
    shards: list[list[PlannedTensor]] = []
    size = 0
    for tensor in tensors:
        # Within a shard too, no tensor of a wide dtype may follow one of a narrow dtype: writing_order sees to it.
        if not shards or size + tensor.num_bytes > max_file_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.num_bytes
    return shards
