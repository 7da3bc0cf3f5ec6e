"""An optimizer's step taken in parts, on slices of its tensors, with the bits of a step on the whole tensors.

ZeRO hands an optimizer one flat tensor for many parameters. An optimizer that treats each element by itself makes the
same of a slice as of the whole, so that the work around its step can be done, and its memory given back, in parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipelines.engine.shards.access import MasterSlice

_BY_ELEMENT = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD)


def steps_by_element(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer is known to treat each element by itself, whichever others it steps along with it."""
    return type(optimizer) in _BY_ELEMENT


class PartialStep:
    """One step of an optimizer, taken in parts.

    Call the optimizer's step once inside each :meth:`only`; together the parts must be everything, without overlap.
    Then call :meth:`close`: only now do counts in the state, such as that of the steps, go on.

    Args:
        optimizer: one for which :func:`steps_by_element` holds; its groups hold the tensors of this step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer, self._groups = optimizer, optimizer.param_groups
        self._after: dict[Tensor, dict[str, Any]] = {}

    def rest(self, slices: Sequence[MasterSlice]) -> list[MasterSlice]:
        """What the optimizer steps beside ``slices``, such as elements that only pad a flat tensor."""
        found = []
        ranges = _ranges(slices)
        for owner in (owner for group in self._groups for owner in group["params"]):
            end = 0
            for start, stop in [*ranges.get(id(owner), []), (owner.numel(), owner.numel())]:
                if start > end:
                    found.append(MasterSlice(owner, end, start - end))
                end = stop
        return found

    @contextmanager
    def only(self, slices: Sequence[MasterSlice]) -> Iterator[None]:
        """Let the optimizer's groups hold these slices alone, with their gradients and their part of its state."""
        optimizer, ranges = self._optimizer, _ranges(slices)
        parts: list[_Part] = []
        groups = []
        for group in self._groups:
            parameters: list[Tensor] = []
            for owner in group["params"]:
                for start, end in ranges.get(id(owner), ()):
                    if end - start == owner.numel():
                        parameters.append(owner)
                    else:
                        parts.append(_Part(optimizer.state, owner, start, end))
                        parameters.append(parts[-1].parameter)
            groups.append({**group, "params": parameters})
        optimizer.param_groups = groups
        try:
            yield
        finally:
            optimizer.param_groups = self._groups
            for part in parts:
                part.take_back(self._after.setdefault(part.owner, {}))

    def close(self) -> None:
        """Let the state of the whole tensors be that after the step."""
        for owner, state in self._after.items():
            if state:
                self._optimizer.state[owner].update(state)


class _Part:
    """A slice of a tensor as a parameter of its own, whose values, gradient and state are views of the whole's."""

    def __init__(self, states: Any, owner: Tensor, start: int, end: int) -> None:
        self.owner, self._states = owner, states
        self._start, self._numel = start, end - start
        self.parameter = torch.nn.Parameter(self._of(owner.data), requires_grad=owner.requires_grad)
        if owner.grad is not None:
            self.parameter.grad = self._of(owner.grad.data)
        whole = states.get(owner)
        if whole:
            # Counts are the whole tensor's, and each part of the step must begin with the same.
            states[self.parameter] = {
                key: self._of(value) if self._is_spread(value, owner) else _copy(value) for key, value in whole.items()
            }

    def take_back(self, after: dict[str, Any]) -> None:
        """Collect in ``after`` what the whole's state must take over: counts, and what this step has newly made."""
        whole = self._states.get(self.owner, {})
        for key, value in self._states.pop(self.parameter, {}).items():
            if not self._is_spread(value, self.parameter):
                after[key] = value
                continue
            if key not in whole and key not in after:
                after[key] = torch.zeros_like(self.owner, dtype=value.dtype)
            target = self._of(whole[key] if key in whole else after[key])
            if target.data_ptr() != value.data_ptr():
                target.copy_(value)

    def _of(self, tensor: Tensor) -> Tensor:
        return tensor.view(-1).narrow(0, self._start, self._numel)

    @staticmethod
    def _is_spread(value: Any, over: Tensor) -> bool:
        return isinstance(value, Tensor) and value.dim() > 0 and value.shape == over.shape


def _ranges(slices: Sequence[MasterSlice]) -> dict[int, list[tuple[int, int]]]:
    """For each owner, by its id, the ranges of elements that the slices cover; neighbours are joined."""
    found: dict[int, list[tuple[int, int]]] = {}
    for each in sorted(slices, key=lambda each: each.offset):
        ranges = found.setdefault(id(each.owner), [])
        if ranges and ranges[-1][1] == each.offset:
            ranges[-1] = (ranges[-1][0], each.offset + each.numel)
        else:
            ranges.append((each.offset, each.offset + each.numel))
    return found


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
