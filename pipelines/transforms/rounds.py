"""The rounds of an optimizer's step: tensors whose weights are kept meanwhile are stepped some at a time.

What is kept of the weights from before a step is then one round's part of them, and not all that a rank holds. A tensor
is in the same round on every rank, since its projection sums over its shards on all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.engine.shards.access import MasterSlice, ShardAccess
from pipelines.engine.shards.partial_step import PartialStep, steps_by_element

ROUND_ELEMENTS: Final = 1 << 26
"""How many elements a rank keeps at once, 256 MiB in float32, unless a single tensor's shard has more."""

ROUND_ELEMENTS_ON_CPU: Final = 1 << 24
"""The same on a processor, where their place is held between steps, and rounds cost no launches of kernels."""


def round_elements_on(device: torch.device) -> int:
    """How many elements a rank keeps at once on a device, unless a single tensor's shard has more."""
    return ROUND_ELEMENTS_ON_CPU if device.type == "cpu" else ROUND_ELEMENTS


class StepInRounds:
    """Has an optimizer take its step in rounds, each between its own hooks.

    An optimizer that is not known to treat each element by itself takes its step whole.

    Args:
        access: this rank's shards.
        optimizer: the torch optimizer that steps the master weights; its ``step`` is wrapped until :meth:`close`.
        is_kept: whether the weights of a shard from before the step are kept in it.
        limit: how many elements a rank keeps at most in a round of several tensors.
    """

    def __init__(
        self, access: ShardAccess, optimizer: torch.optim.Optimizer, is_kept: Callable[[int], bool], limit: int
    ) -> None:
        self._access, self._optimizer, self._is_kept, self._limit = access, optimizer, is_kept, limit
        self._call = 0
        self._measured = False
        self._round: list[int] | None = None
        self._rounds: dict[tuple[int, bool], list[list[int]]] = {}
        self._whole_step = optimizer.step
        self._own = "step" in vars(optimizer)

        @functools.wraps(self._whole_step)
        def step(*args: Any, **kwargs: Any) -> Any:
            return self._in_rounds(*args, **kwargs)

        optimizer.step = step  # type: ignore[method-assign]

    def close(self) -> None:
        """Give the optimizer its own step back."""
        if self._own:
            self._optimizer.step = self._whole_step  # type: ignore[method-assign]
        else:
            vars(self._optimizer).pop("step", None)

    def begin(self, *, measured: bool) -> None:
        """Say that a new step begins; more weights may be kept in one that is measured."""
        self._call, self._measured = 0, measured

    def concerned(self) -> tuple[list[int], list[MasterSlice]]:
        """The indices of the shards that the optimizer steps now, and their masters."""
        masters = self._access.masters()
        which = self._present(masters) if self._round is None else self._round
        return which, [masters[index] for index in which]

    def _present(self, masters: Sequence[MasterSlice]) -> list[int]:
        # ZeRO steps one group (stages 1, 2) or sub-group (stage 3) at a time.
        present = {id(parameter) for group in self._optimizer.param_groups for parameter in group["params"]}
        return [index for index, master in enumerate(masters) if id(master.owner) in present]

    def _in_rounds(self, *args: Any, **kwargs: Any) -> Any:
        if any(value is not None for value in (*args, *kwargs.values())) or not steps_by_element(self._optimizer):
            return self._whole_step(*args, **kwargs)
        masters, shards = self._access.masters(), self._access.shards
        which = self._present(masters)
        rounds = self._shared_rounds(which)
        if len(rounds) == 1:
            return self._whole_step()
        partial = PartialStep(self._optimizer)
        rest = partial.rest([masters[index] for index in which])
        try:
            for tensors in map(frozenset, rounds):
                self._round = [index for index in which if shards[index].tensor in tensors]
                with partial.only([*(masters[index] for index in self._round), *rest]):
                    self._whole_step()
                rest = []
        finally:
            self._round = None
        return partial.close()

    def _shared_rounds(self, which: Sequence[int]) -> list[list[int]]:
        """The rounds of this call of the step, which all ranks make in the same order."""
        key = (self._call, self._measured)
        self._call += 1
        if key not in self._rounds:
            own: list[int | None] = [None] * len(self._access.names)
            for index in which:
                shard = self._access.shards[index]
                own[shard.tensor] = (own[shard.tensor] or 0) + (shard.numel if self._is_kept(index) else 0)
            reduce = not self._access.replicated
            self._rounds[key] = shared_rounds(own, self._limit, device=self._access.device(), reduce=reduce)
        return self._rounds[key]


def shared_rounds(own: Sequence[int | None], limit: int, *, device: torch.device, reduce: bool) -> list[list[int]]:
    """The tensors of each round, the same on every rank. Collective with ``reduce``.

    Args:
        own: for each tensor how many of its elements this rank would keep, 0 for none; None if it steps none of it.
        limit: how many a rank keeps at most in a round of several tensors.
        device: where ranks exchange numbers.
        reduce: whether ranks hold different shards.

    Returns:
        Indices of tensors, those of each round in ascending order; at least one round, which may be empty.
    """
    several = reduce and dist.get_world_size() > 1
    table = torch.zeros(dist.get_world_size() if several else 1, len(own), dtype=torch.int64, device=device)
    # One more than is kept, so that 0 says that a rank steps nothing of a tensor.
    table[dist.get_rank() if several else 0] = torch.tensor([0 if each is None else each + 1 for each in own])
    if several:
        dist.all_reduce(table)
    return divide(table.cpu(), limit)


def divide(kept: Tensor, limit: int) -> list[list[int]]:
    """Divide tensors into rounds: each goes to the first round in which it fits on all ranks.

    Args:
        kept: ``[ranks, tensors]`` int64: 0 where a rank steps nothing of a tensor, otherwise one more than the number
            of elements that it keeps.
        limit: how many elements a rank keeps at most in a round of several tensors.
    """
    rounds: list[list[int]] = []
    loads: list[Tensor] = []
    for index in (kept > 0).any(0).nonzero().flatten().tolist():
        load = (kept[:, index] - 1).clamp(min=0)
        # Ranks that keep nothing of this tensor do not care how full a round is.
        fits = (i for i, held in enumerate(loads) if bool(((held + load <= limit) | (load == 0)).all()))
        place = next(fits, None)
        if place is None:
            rounds.append([])
            loads.append(torch.zeros_like(load))
            place = len(rounds) - 1
        rounds[place].append(index)
        loads[place] += load
    return rounds or [[]]
