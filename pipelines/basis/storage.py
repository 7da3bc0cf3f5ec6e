"""The rows of a basis on disk: safetensors files of ``[k, n_t]`` by parameter, read and written tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_registry.core.errors import ArtifactError, NumericsError
from pipelines.engine.shards.access import Shard, ShardAccess
from pipelines.gradients import projection
from pipelines.weights.writing import MAX_FILE_BYTES, Layout, PlannedTensor, ShardedFiles

GRAM_FILE = "gram.safetensors"
_STEM = "basis"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def write_rows(
    directory: Path, access: ShardAccess, rows: Sequence[Tensor], dtype: torch.dtype, *, stem: str = _STEM
) -> Tensor | None:
    """Gather the ranks' rows tensor by tensor and write them. Collective; rank zero alone writes.

    Args:
        directory: the directory of the artifact being made.
        access: this rank's shards.
        rows: ``[k, numel]`` float32, one for each shard.
        dtype: the dtype in which the rows are stored.
        stem: the first part of the files' names.

    Returns:
        ``[T, k, k]`` float64 Gram matrices of the stored values on rank zero, None elsewhere.
    """
    main = not dist.is_initialized() or dist.get_rank() == 0
    grams: list[Tensor] = []
    with ExitStack() as stack:
        files: ShardedFiles | None = None
        for name, stored in _whole_tensors(access, rows, dtype):
            if not main:
                continue
            assert stored is not None
            if files is None:
                sizes = dict(zip(access.names, access.numels, strict=True))
                files = stack.enter_context(_files(directory, sizes, stored.shape[0], dtype, stem))
            grams.append(projection.gram(stored))
            files.add(name, stored)
    if not main:
        return None
    return torch.stack(grams)


def write_whole_rows(directory: Path, rows: Mapping[str, Tensor]) -> Tensor:
    """Write rows that this process holds as a whole, as :func:`write_rows` does.

    Args:
        directory: the directory of the artifact being made.
        rows: by parameter ``[k, n_t]``, float32 or bfloat16, as they are to be stored.

    Returns:
        ``[T, k, k]`` float64 Gram matrices, in the order of the parameters.
    """
    first = next(iter(rows.values()))
    sizes = {name: row.shape[1] for name, row in rows.items()}
    with _files(directory, sizes, first.shape[0], first.dtype, _STEM) as files:
        for name, row in rows.items():
            files.add(name, row.contiguous().cpu())
    return torch.stack([projection.gram(row.cpu()) for row in rows.values()])


def _files(directory: Path, sizes: Mapping[str, int], k: int, dtype: torch.dtype, stem: str) -> ShardedFiles:
    plan = [PlannedTensor(name, dtype, (k, numel)) for name, numel in sizes.items()]
    return ShardedFiles(directory, plan, MAX_FILE_BYTES, Layout(stem, metadata={"format": f"ogpsa-{stem}"}))


def _whole_tensors(
    access: ShardAccess, rows: Sequence[Tensor], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor | None]]:
    by_tensor = {shard.tensor: (shard, block) for shard, block in zip(access.shards, rows, strict=True)}
    k = max((block.shape[0] for block in rows), default=0)
    for index, (name, numel) in enumerate(zip(access.names, access.numels, strict=True)):
        shard, block = by_tensor.get(index, (None, None))
        if access.replicated:
            assert block is not None
            yield name, block.to(dtype).cpu()
            continue
        yield name, _gather(shard, block, k, numel, dtype, access.device())


def _gather(
    shard: Shard | None, block: Tensor | None, k: int, numel: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    world, rank = dist.get_world_size(), dist.get_rank()
    place = torch.tensor([shard.start, shard.numel, k] if shard else [0, 0, k], device=device)
    places = [torch.zeros_like(place) for _ in range(world)]
    dist.all_gather(places, place)
    k = int(max(int(other[2]) for other in places))
    whole = torch.zeros(k, numel, dtype=dtype) if rank == 0 else None
    for source, other in enumerate(places):
        start, count = int(other[0]), int(other[1])
        if count == 0:
            continue
        if rank == 0:
            part = torch.empty(k, count, device=device)
            if source == 0:
                assert block is not None
                part = block.to(device)
            else:
                dist.recv(part, src=source)
            assert whole is not None
            whole[:, start : start + count] = part.to(dtype).cpu()
        elif rank == source:
            assert block is not None
            dist.send(block.contiguous().to(device), dst=0)
    return whole


def check_finite(names: Sequence[str], grams: Tensor) -> None:
    """Refuse rows that are not finite, before they become an artifact.

    Args:
        names: the names of the T parameters.
        grams: ``[T, k, k]`` Gram matrices of their rows.

    Raises:
        NumericsError: a row is not finite; the message names the first such parameter.
    """
    bad = (~torch.isfinite(grams)).flatten(1).any(1).nonzero()
    if len(bad):
        raise NumericsError(
            f"the reference gradient of {names[int(bad[0])]} is not finite ({len(bad)} of {len(names)} parameters)",
            fix="look at the loss on that data:  ogpsa evaluate MODEL --suite reference-loss --data DATA",
        )


def read_rows(directory: Path, access: ShardAccess) -> list[Tensor]:
    """This rank's slices of a basis.

    Returns:
        one ``[k, numel]`` tensor for each of ``access.shards``, in the stored dtype, on ``access.rows_device()``.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    parts = [(access.names[shard.tensor], shard.start, shard.start + shard.numel) for shard in access.shards]
    device = access.rows_device()
    return [block.to(device) for block in _read_parts(directory, parts)]


def read_whole_rows(directory: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The whole rows of parameters, ``[k, n_t]`` in the stored dtype, on the CPU.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    return dict(zip(names, _read_parts(directory, [(name, 0, None) for name in names]), strict=True))


def _read_parts(directory: Path, parts: Sequence[tuple[str, int, int | None]]) -> Iterator[Tensor]:
    """Elements from the one index to the other of the parameters' rows."""
    try:
        weight_map = json.loads((directory / Layout(_STEM).index).read_text(encoding="utf-8"))["weight_map"]
        for name, start, stop in parts:
            with safe_open(directory / weight_map[name], framework="pt") as file:
                # A slice of a single row is a view of the whole file; a copy holds these elements alone.
                block = file.get_slice(name)[:, start:stop].clone(memory_format=torch.contiguous_format)
            yield block
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"basis '{directory}' cannot be read: {error}", where=str(directory), fix="build it again with --overwrite"
        ) from error
