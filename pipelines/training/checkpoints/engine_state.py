"""Master weights, optimizer state and transforms' tensors, written by shards and read back for any world size.

Everything is keyed by parameter name and offset, as :class:`ShardAccess` shows it, so that neither the engine's own
layout nor the number of ranks is in the files, and nothing is pickled. Frozen parameters are not written: they equal
those of the model that training started from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_registry.core.errors import EngineError
from pipelines.engine.shards.access import MasterSlice, ShardAccess
from pipelines.weights.pieces import PieceReader, PieceWriter

_WEIGHTS, _KEPT = "weights", "kept"
# Optimizer state of the parameter's size is spread over ranks as it is; the rest (step counts) is small, kept whole.
_SPREAD, _WHOLE, _NUMBER = "spread", "whole", "number"


def write_engine_state(
    directory: Path,
    access: ShardAccess,
    optimizer: torch.optim.Optimizer,
    kept: Mapping[str, Sequence[Tensor]],
    rank: int,
) -> list[Path]:
    """Write this rank's part of the state.

    Args:
        directory: the directory in which all ranks write.
        access: this rank's shards.
        optimizer: the torch optimizer that steps the master weights.
        kept: the tensors that transforms keep: by name, ``[..., numel]`` for each shard.
        rank: this rank.

    Returns:
        the files written; none where another rank holds the same state.

    Raises:
        EngineError: the optimizer keeps state that cannot be spread over other ranks.
    """
    if access.replicated and rank != 0:
        return []
    writer = PieceWriter(directory, rank)
    for shard, master in zip(access.shards, access.masters(), strict=True):
        name = access.names[shard.tensor]
        writer.add(_WEIGHTS, name, shard.start, master.weights())
        for key, value in optimizer.state.get(master.owner, {}).items():
            kind, tensor = _classified(key, value, master, name, replicated=access.replicated)
            writer.add(kind, name, shard.start, tensor)
    _add_kept(writer, access, kept)
    writer.finish()
    return writer.files


def write_kept(directory: Path, access: ShardAccess, kept: Mapping[str, Sequence[Tensor]], rank: int) -> None:
    """Write this rank's part of what transforms keep, alone, for :func:`read_tensors`.

    Args:
        directory: the directory in which all ranks write.
        access: this rank's shards.
        kept: by name ``[..., numel]`` for each shard.
        rank: this rank.
    """
    if access.replicated and rank != 0:
        return
    writer = PieceWriter(directory, rank)
    _add_kept(writer, access, kept)
    writer.finish()


def _add_kept(writer: PieceWriter, access: ShardAccess, kept: Mapping[str, Sequence[Tensor]]) -> None:
    for key, tensors in kept.items():
        for shard, tensor in zip(access.shards, tensors, strict=True):
            writer.add(f"{_KEPT}.{key}", access.names[shard.tensor], shard.start, tensor)


def _classified(key: str, value: Any, master: MasterSlice, name: str, *, replicated: bool) -> tuple[str, Tensor]:
    if not isinstance(value, Tensor):
        return f"{_NUMBER}.{key}", torch.tensor(value)
    if value.numel() == master.owner.numel() and value.numel() > 1:
        return f"{_SPREAD}.{key}", master.part_of(value.reshape(-1))
    if replicated or value.numel() == 1:
        return f"{_WHOLE}.{key}", value
    raise EngineError(
        f"checkpoints do not serve this optimizer under ZeRO: its '{key}' of {name} has {value.numel()} elements",
        fix="use AdamW (the default), or leave --zero out",
    )


def read_engine_state(directory: Path, access: ShardAccess, optimizer: torch.optim.Optimizer) -> None:
    """Restore weights and optimizer state, for this rank's shards. Collective under ZeRO.

    Raises:
        KeyError: the files do not hold all of this model.
    """
    stays_on_host = not any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    with PieceReader(directory) as reader, torch.no_grad():
        for shard, master in zip(access.shards, access.masters(), strict=True):
            name = access.names[shard.tensor]
            master.weights().copy_(reader.read(_WEIGHTS, name, shard.start, shard.numel))
            state = optimizer.state[master.owner]
            for kind in reader.kinds(name):
                how, _, key = kind.partition(".")
                if how == _SPREAD:
                    piece = reader.read(kind, name, shard.start, shard.numel)
                    if key not in state:
                        state[key] = torch.zeros_like(master.owner.data, dtype=piece.dtype)
                    master.part_of(state[key]).copy_(piece)
                elif how == _WHOLE:
                    tensor = reader.whole(kind, name)
                    state[key] = tensor if stays_on_host and key == "step" else tensor.to(master.owner.device)
                elif how == _NUMBER:
                    state[key] = reader.whole(kind, name).item()
    access.weights_edited()


def read_tensors(directory: Path, access: ShardAccess) -> dict[str, list[Tensor]]:
    """The tensors that transforms kept: by name, ``[..., numel]`` for each of this rank's shards, on the rows' device.

    Raises:
        KeyError: the files do not hold all of a tensor.
    """
    with PieceReader(directory) as reader:
        kinds = {kind for name in access.names for kind in reader.kinds(name) if kind.startswith(f"{_KEPT}.")}
        return {
            kind.removeprefix(f"{_KEPT}."): [
                reader.read(kind, access.names[shard.tensor], shard.start, shard.numel).to(access.rows_device())
                for shard in access.shards
            ]
            for kind in sorted(kinds)
        }
