"""This process's rank, the number of processes, and work that rank zero does for all.

torch is imported only where several processes work together; they have joined a group before
(:func:`pipelines.engine.processes.start`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from data_registry.core import stopping
from data_registry.core.errors import OgpsaError, Preempted

ResultT = TypeVar("ResultT")


def rank() -> int:
    """This process's global rank, 0 when alone. The launcher translates Slurm's variables into these."""
    return _number("RANK", 0)


def world_size() -> int:
    """The number of processes of this job, 1 when alone."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        # The launcher refuses such a value; until then there must be a rank that shows errors.
        return default


def is_main() -> bool:
    """Whether this is rank zero, which alone writes artifacts."""
    return rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    group = _group()
    if group is not None:
        group.barrier()


def on_main(work: Callable[[], ResultT]) -> ResultT:
    """Do ``work`` on rank zero; every rank gets its result, or its error.

    Args:
        work: the function to call; its result must be picklable, and travels between processes of this job only.

    Raises:
        OgpsaError: whatever ``work`` raised on rank zero.
    """
    group = _group()
    if group is None:
        return work()
    outcome: list[object] = [None, None]
    if is_main():
        try:
            outcome[0] = work()
        except OgpsaError as error:
            outcome[1] = error
        except stopping.StopRequested as error:
            # The other ranks wait here, and no signal reaches a rank that waits for a device.
            outcome[1] = Preempted(stopping.said(str(error)))
    group.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[1], OgpsaError):
        raise outcome[1]
    return outcome[0]  # type: ignore[return-value]


def gather(value: ResultT) -> list[ResultT]:
    """The values of all ranks, by rank, on every rank; they must be picklable."""
    group = _group()
    if group is None:
        return [value]
    gathered: list[Any] = [None] * world_size()
    group.all_gather_object(gathered, value)
    return gathered


def _group() -> Any:
    """``torch.distributed`` if this process works together with others, None if it works alone.

    Under a launcher, a command that needs only one process runs on rank zero without a group.
    """
    if world_size() == 1:
        return None
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_initialized():
        return dist
    assert is_main(), "a process must join its job's group before it works together with the others"
    return None
