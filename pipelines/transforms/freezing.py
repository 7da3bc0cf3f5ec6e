"""Freezing: parameters keep their starting weights to the bit, whatever optimizer, weight decay and momentum do.

Their gradients are set to zero before clipping, so that the clip norm is that of the trained parameters, and their
weights are put back after the optimizer's step, since weight decay moves also parameters without a gradient.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError
from pipelines.engine.shards.access import ShardAccess
from pipelines.transforms.scope import group_tensors
from pipelines.transforms.transform import StepPart, Transform

_PRIME = 1_000_003


def _is_embedding(module: nn.Module, parameter: str) -> bool:
    return isinstance(module, nn.Embedding)


def _is_norm(module: nn.Module, parameter: str) -> bool:
    return "norm" in type(module).__name__.lower()


def _is_bias(module: nn.Module, parameter: str) -> bool:
    return parameter.endswith("bias")


WORDS: dict[str, Callable[[nn.Module, str], bool]] = {
    "embeddings": _is_embedding,
    "norms": _is_norm,
    "biases": _is_bias,
}
"""What the words stand for: a test of a parameter's module and its name within it."""


def frozen_tensors(patterns: Sequence[str], access: ShardAccess) -> list[int]:
    """Indices of the trainable parameters whose names match a pattern.

    Args:
        patterns: names of parameters, with ``*`` and ``?`` as in file names, or the words of ``WORDS``.
        access: this rank's shards, with the names of the model's trainable parameters.

    Raises:
        ConfigError: a pattern names no trainable parameter, or nothing is left to train.
    """
    owners = {
        f"{path}.{name}".removeprefix("."): (module, name)
        for path, module in access.module.named_modules(remove_duplicate=False)
        for name, _ in module.named_parameters(recurse=False)
    }
    frozen: set[int] = set()
    problems = []
    for pattern in patterns:
        word = WORDS.get(pattern)
        found = {
            index
            for index, name in enumerate(access.names)
            if (word(*owners[name]) if word is not None else fnmatch.fnmatchcase(name, pattern))
        }
        if not found:
            # A known word is spelled correctly even where it finds nothing, so no similar name is suggested.
            near = "" if word is not None else suggest(pattern, [*WORDS, *access.names])
            problems.append(f"--freeze {pattern} names no parameter that is trained{near}")
        frozen |= found
    if problems:
        raise ConfigError(
            problems,
            fix=f"names such as {access.names[-1]}, patterns such as '{_pattern_of(access.names[-1])}', "
            f"or {', '.join(WORDS)}",
        )
    if len(frozen) == len(access.names):
        raise ConfigError(
            f"--freeze {','.join(patterns)} leaves nothing to train: all {len(frozen)} trained parameters are frozen",
            fix="leave out some of the patterns",
        )
    return sorted(frozen)


def _pattern_of(name: str) -> str:
    """A pattern that names a parameter and its neighbours: those of its layer, or of its module."""
    (group,) = group_tensors([name], "layer").names
    return f"{name.rpartition('.')[0] if group == name else group}.*"


class Freezing(Transform):
    """Holds parameters at their starting weights.

    Args:
        access: this rank's shards.
        frozen: the indices of the frozen tensors.
    """

    name: ClassVar[str] = "freeze"
    order: ClassVar[int] = 10
    reads_gradient: ClassVar[bool] = True

    def __init__(self, access: ShardAccess, frozen: Collection[int]) -> None:
        self.access, self.frozen = access, frozenset(frozen)
        access.align_masters(self.frozen)
        self._start = self._checksums()

    def _is_frozen(self, shard: int) -> bool:
        return self.access.shards[shard].tensor in self.frozen

    def on_gradient(self, gradients: Sequence[Tensor | None], *, measured: bool) -> bool:
        """Set the frozen gradients to zero."""
        for shard, gradient in enumerate(gradients):
            if gradient is not None and self._is_frozen(shard):
                gradient.zero_()
        return True

    def keeps_weights(self, shard: int, *, measured: bool) -> bool:
        """Keep the weights of the frozen tensors."""
        return self._is_frozen(shard)

    def on_change(self, part: StepPart, *, measured: bool) -> bool:
        """Put the frozen weights back."""
        for shard, master, before in zip(part.which, part.masters, part.before, strict=True):
            if before is not None and self._is_frozen(shard):
                master.weights().copy_(before)
        return True

    def state(self) -> dict[str, Any]:
        """The checksums of the starting weights."""
        return {"start": self._start}

    def restore(self, state: dict[str, Any], tensors: dict[str, list[Tensor]]) -> None:
        """Take over the checksums from the start of the run, not those of the weights it resumes at."""
        self._start = state["start"]

    def finish(self, directory: Path) -> dict[str, Any]:
        """Whether the frozen master weights are those of the start, by checksums of their bits. Collective."""
        return {"frozen_tensors": len(self.frozen), "frozen_identical": self._checksums() == self._start}

    def _checksums(self) -> dict[str, list[int]]:
        """Two sums over the bits of every frozen tensor; they add up over shards, however these are cut."""
        device = self.access.device()
        sums = torch.zeros(len(self.access.names), 2, dtype=torch.int64, device=device)
        for shard, master in zip(self.access.shards, self.access.masters(), strict=True):
            if shard.tensor not in self.frozen:
                continue
            weights = master.weights().detach()
            bits = weights.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[weights.element_size()])
            places = torch.arange(shard.start, shard.start + shard.numel, device=bits.device) % _PRIME + 1
            # Integer sums that wrap around are the same in any order.
            sums[shard.tensor, 0] += bits.sum(dtype=torch.int64).to(device)
            sums[shard.tensor, 1] += (bits.to(torch.int64) * places).sum().to(device)
        if not self.access.replicated and self.access.world_size > 1:
            dist.all_reduce(sums)
        return {self.access.names[tensor]: sums[tensor].tolist() for tensor in sorted(self.frozen)}
