"""The self-test of the first step: does the gradient that was edited reach the optimizer?

Editing gradients at the wrong place is the classic failure under DeepSpeed: all seems to work and nothing is applied.
The test compares what the optimizer is about to read with what was written, up to the common factor of clipping. It
changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from data_registry.core.errors import EngineError
from pipelines.engine.shards.access import Shard

_SAMPLE = 1 << 16
_TOLERANCE = 1e-4


class ReachTest:
    """Compares edited gradients with those that the optimizer reads.

    Args:
        names: the parameters' names, for the message.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._expected: dict[int, Tensor] = {}
        self._tensors: list[int] = []
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}

    def expect(self, shards: Sequence[Shard], gradients: Sequence[Tensor | None]) -> None:
        """Remember the edited gradients, or the beginning of long ones; one for each shard."""
        self._tensors = [shard.tensor for shard in shards]
        self._expected = {
            index: gradient[:_SAMPLE].to(torch.float32, copy=True)
            for index, gradient in enumerate(gradients)
            if gradient is not None
        }

    def check(self, which: Sequence[int], read: Sequence[Tensor | None]) -> None:
        """Take the gradients that the optimizer reads in this part of its step."""
        for index, gradient in zip(which, read, strict=True):
            if gradient is not None and index in self._expected:
                self._pairs[index] = (self._expected[index], gradient[:_SAMPLE].to(torch.float32, copy=True))

    def conclude(self) -> None:
        """Judge the step.

        Raises:
            EngineError: a gradient was not read, or is not the edited one.
        """
        norms = {index: float(gradient.norm()) for index, gradient in self._expected.items()}
        unread = [index for index, norm in norms.items() if norm > 0 and index not in self._pairs]
        if unread:
            self._fail(unread[0], "was not read by the optimizer")
        inner = sum(float(edited.double() @ read.double()) for edited, read in self._pairs.values())
        squared = sum(float(edited.double() @ edited.double()) for edited, _ in self._pairs.values())
        if squared == 0:
            return
        factor = inner / squared
        for index, (edited, read) in self._pairs.items():
            error = float((read - factor * edited).norm())
            if not error <= _TOLERANCE * abs(factor) * float(edited.norm()) + 1e-30:
                self._fail(index, "reached the optimizer without the edit")

    def _fail(self, index: int, what: str) -> None:
        name = self._names[self._tensors[index]]
        raise EngineError(
            f"the projected gradient of {name} {what}: training would look projected and not be",
            where="self-test at the first optimizer step",
            fix="try another --zero stage, and report your DeepSpeed configuration and version (ogpsa doctor)",
        )
