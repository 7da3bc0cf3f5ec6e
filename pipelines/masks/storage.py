"""Masks on disk: safetensors files of packed bits by parameter, read by slices at any element."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from data_registry.core.errors import ArtifactError
from pipelines.masks import bits
from pipelines.masks.parameters import Parameter
from pipelines.weights.writing import MAX_FILE_BYTES, Layout, PlannedTensor, ShardedFiles

LAYOUT = Layout("mask", metadata={"format": "ogpsa-mask"})


def mask_files(directory: Path, parameters: Sequence[Parameter]) -> ShardedFiles:
    """Files that take the packed bits of all parameters in their order, as uint8 ``[ceil(n_t / 8)]`` each."""
    plan = [PlannedTensor(each.name, torch.uint8, (bits.num_bytes(each.numel),)) for each in parameters]
    return ShardedFiles(directory, plan, MAX_FILE_BYTES, LAYOUT)


class StoredMask:
    """Reads the bits of a mask.

    Args:
        directory: the artifact.

    Raises:
        ArtifactError: its index cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            index = json.loads((directory / LAYOUT.index).read_text(encoding="utf-8"))
            self._files: dict[str, str] = index["weight_map"]
        except (OSError, ValueError, KeyError) as error:
            raise self._unreadable(error) from error

    def packed(self, name: str, start: int, stop: int) -> bits.Bytes:
        """Bytes ``start`` to ``stop`` of a parameter's bits."""
        if stop <= start:
            return np.zeros(0, dtype=np.uint8)
        try:
            with safe_open(self._directory / self._files[name], framework="numpy") as file:
                return np.array(file.get_slice(name)[start:stop])
        except (OSError, KeyError, SafetensorError) as error:
            raise self._unreadable(error) from error

    def flags(self, name: str, start: int, numel: int) -> bits.Flags:
        """Which of ``numel`` elements from ``start`` on of a flattened parameter are in the mask: ``[numel]`` bool."""
        packed = self.packed(name, start // 8, bits.num_bytes(start + numel))
        return bits.unpack(packed, start % 8, numel)

    def _unreadable(self, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"mask '{self._directory}' cannot be read: {error}",
            where=str(self._directory),
            fix="build it again with --overwrite",
        )
