"""Sharded tensors on disk: pieces in safetensors files by kind, parameter and offset, for any number of readers."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pipelines.weights.writing import MAX_FILE_BYTES, write_tensors

_PATTERN = "pieces-*.safetensors"


class PieceWriter:
    """Writes one rank's pieces, in files of bounded size.

    Nothing is copied but one tensor at a time while it is written, and that only from an accelerator: a copy of the
    whole state would stand in memory beside it, and leave its room behind in the process.

    Args:
        directory: the folder of the pieces; other ranks write into it too.
        rank: this rank.
    """

    def __init__(self, directory: Path, rank: int) -> None:
        self._directory, self._rank = directory, rank
        self._pending: dict[str, Tensor] = {}
        self._bytes = 0
        self.files: list[Path] = []

    def add(self, kind: str, name: str, start: int, tensor: Tensor) -> None:
        """Write the piece of a flattened parameter that begins at element ``start``; its last dimension runs there.

        Args:
            kind: what of the parameter it is, such as ``"weights"``.
            name: the parameter's name.
            start: the index of its first element in the flattened parameter.
            tensor: ``[..., numel]``, any dtype, on any device. It is read when its file is full or finished, and must
                keep its values until then.
        """
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._bytes + size > MAX_FILE_BYTES:
            self.finish()
        self._pending[f"{kind}:{start}:{name}"] = tensor.detach()
        self._bytes += size

    def finish(self) -> None:
        """Write what is still held."""
        if not self._pending:
            return
        path = self._directory / f"pieces-{self._rank:05d}-{len(self.files):05d}.safetensors"
        write_tensors(path, self._pending)
        self.files.append(path)
        self._pending, self._bytes = {}, 0


class PieceReader:
    """Reads parts of parameters from the pieces of all ranks that wrote, whatever their number was.

    Args:
        directory: the folder of the pieces.
    """

    def __init__(self, directory: Path) -> None:
        self._files = ExitStack()
        # By name and kind: (start, number of elements, file, key).
        self._pieces: dict[str, dict[str, list[tuple[int, int, Any, str]]]] = {}
        for path in sorted(directory.glob(_PATTERN)):
            file = self._files.enter_context(safe_open(path, framework="pt"))
            for key in file.keys():  # noqa: SIM118 - no mapping
                kind, start, name = key.split(":", 2)
                shape = file.get_slice(key).get_shape()
                piece = (int(start), int(shape[-1]) if shape else 1, file, key)
                self._pieces.setdefault(name, {}).setdefault(kind, []).append(piece)

    def __enter__(self) -> PieceReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def kinds(self, name: str) -> list[str]:
        """The pieces of a parameter that are there."""
        return sorted(self._pieces.get(name, {}))

    def whole(self, kind: str, name: str) -> Tensor:
        """A tensor that is not spread, from whichever rank wrote it."""
        _, _, file, key = self._pieces[name][kind][0]
        tensor: Tensor = file.get_tensor(key)
        return tensor

    def read(self, kind: str, name: str, start: int, numel: int) -> Tensor:
        """Elements ``[start, start + numel)`` of the last dimension, put together from the pieces.

        Raises:
            KeyError: some of them are nowhere.
        """
        parts = []
        at = start
        for first, count, file, key in sorted(self._pieces.get(name, {}).get(kind, []), key=lambda piece: piece[0]):
            low, high = max(at, first), min(start + numel, first + count)
            if low < high and low == at:
                piece = file.get_slice(key)
                inner = slice(low - first, high - first)
                parts.append(piece[inner] if len(piece.get_shape()) == 1 else piece[:, inner])
                at = high
        if at != start + numel:
            raise KeyError(f"{kind} of {name}: elements from {at} on are missing")
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
