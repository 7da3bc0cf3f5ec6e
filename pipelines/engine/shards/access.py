"""The one module that knows where each engine keeps this rank's part of gradients and master weights.

``open_shards(engine_or_model, optimizer)`` gives a :class:`ShardAccess` whose views are live: an edit of a gradient
between the engine's backward pass and its optimizer step reaches the optimizer, and so does an edit of a master weight.
Everything else in the project sees flat tensors only.

Measured against deepspeed 0.19; what cannot be served is refused by name, never served wrongly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelines.engine.untraced import checkpointing_without_dropout, modes_and_rng_kept


@dataclass(frozen=True)
class Shard:
    """The part of one parameter tensor that this rank is responsible for.

    Attributes:
        tensor: the index of the parameter in :attr:`ShardAccess.names`.
        start: the index of the shard's first element in the flattened parameter.
        numel: the number of elements.
    """

    tensor: int
    start: int
    numel: int


@dataclass(frozen=True)
class MasterSlice:
    """Where the optimizer keeps a shard: elements ``[offset, offset + numel)`` of the flattened ``owner``."""

    owner: Tensor
    offset: int
    numel: int

    def weights(self) -> Tensor:
        """Live flat view of the master weights, ``[numel]``."""
        return self.owner.data.view(-1).narrow(0, self.offset, self.numel)

    def part_of(self, tensor: Tensor) -> Tensor:
        """Live flat view, ``[numel]``, of this part of optimizer state that is spread like ``owner``."""
        return tensor.view(-1).narrow(0, self.offset, self.numel)

    def gradient(self) -> Tensor | None:
        """Live flat view of the gradient that the optimizer is about to read, ``[numel]``; None outside its step."""
        grad = self.owner.grad
        return None if grad is None else grad.data.view(-1).narrow(0, self.offset, self.numel)


class ShardAccess(ABC):
    """Views of this rank's shards of all trainable parameters.

    Attributes:
        names: the trainable parameters' names, the same on every rank.
        shapes: their shapes.
        shards: this rank's shards, in the order in which all methods return their tensors.
        replicated: whether every rank holds everything, so that no reduction is needed.
        forward: the callable for reference passes: the engine where it tracks its passes, else the bare model.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        trainable = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        self.names = [name for name, _ in trainable]
        self._parameters = [parameter for _, parameter in trainable]
        self.shapes = [tuple(getattr(parameter, "ds_shape", parameter.shape)) for parameter in self._parameters]
        self.shards: list[Shard] = []
        self.replicated = True
        self.forward: Any = module

    @property
    def numels(self) -> list[int]:
        """Number of elements of every trainable parameter."""
        return [int(torch.Size(shape).numel()) for shape in self.shapes]

    @property
    def world_size(self) -> int:
        """Number of data-parallel ranks."""
        return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

    def device(self) -> torch.device:
        """The device on which this rank computes."""
        return next(iter(self.module.parameters())).device

    def rows_device(self) -> torch.device:
        """The device of gradients and master weights, and hence of a basis's rows: the host, if they are offloaded."""
        return self.device()

    @abstractmethod
    def gradients(self) -> list[Tensor | None]:
        """Live flat views of the reduced gradients, one for each shard; None where no gradient arrived."""

    @abstractmethod
    def masters(self) -> list[MasterSlice]:
        """For each shard, the slice in which the optimizer keeps its master weights."""

    def gradients_edited(self) -> None:
        """Tell the engine that gradients were edited, if it caches something that is computed from them."""
        return

    def align_masters(self, tensors: Collection[int]) -> None:
        """Set master weights to the weights that the model computes with, where an engine lets the two differ.

        Args:
            tensors: the indices in :attr:`names` of the tensors concerned.
        """
        return

    def weights_edited(self) -> None:
        """Bring the weights that the model computes with in line with edited master weights. Collective."""
        return

    @abstractmethod
    def accumulate(self, loss: Tensor, *, last: bool, into: Sequence[Tensor]) -> None:
        """Back-propagate one batch of a reference loss; after the last, add the mean over ranks to ``into``.

        Args:
            loss: this rank's scalar, such that the mean over ranks of the sums over batches is the objective.
            last: whether this is the objective's last batch.
            into: ``[numel]`` float32 tensors, one for each shard; added to.
        """

    @contextmanager
    def untraced(self) -> Iterator[None]:
        """A context for passes without dropout that leaves gradients, counters, RNG and modes as they were."""
        with modes_and_rng_kept(self.module, training=False), checkpointing_without_dropout(self.module):
            yield


def is_partitioned(model: torch.nn.Module) -> bool:
    """Whether each rank has only a part of every parameter, so that all ranks must take part in a forward pass."""
    return any(hasattr(parameter, "ds_numel") for parameter in model.parameters())


def whole_numel(parameter: Tensor) -> int:
    """The number of elements of a whole parameter, also where this rank holds only a part of it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
