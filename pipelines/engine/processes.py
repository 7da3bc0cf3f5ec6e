"""The process group of a job, and work that rank zero does for all."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from data_registry.core import stopping
from data_registry.core.errors import OgpsaError, Preempted
from pipelines.core.job import rank, world_size
from pipelines.engine import compile_locks

ResultT = TypeVar("ResultT")

# Rank zero may tokenise or hash for long while the others wait; a dead rank is noticed by the launcher.
_TIMEOUT = timedelta(hours=24)


def start() -> torch.device:
    """Join the job's process group, if it has several processes, and choose this process's device."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # With it set, transformers' Trainer silently ignores the DeepSpeed configuration.
        os.environ.pop("ACCELERATE_USE_CPU", None)
    if world_size() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
        _leave_at_exit()
    return device


def start_deepspeed() -> None:
    """Let DeepSpeed take over the process group; a lone process gets a group of one, which it needs all the same.

    Before anything reads a DeepSpeed configuration: it takes the world size from there.
    """
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=_TIMEOUT)
        # Its engine asks for the variable, which only launchers set.
        os.environ.setdefault("LOCAL_RANK", "0")
        _leave_at_exit()
    # DeepSpeed compiles its CPU collective when it is first used.
    compile_locks.release_abandoned()
    import deepspeed

    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _leave_at_exit() -> None:
    # A process that ends with the group's threads still running is aborted now and then, after all its work is done.
    atexit.register(stop)


def is_main() -> bool:
    """Whether this is rank zero, which alone writes artifacts."""
    return rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


def on_main(work: Callable[[], ResultT]) -> ResultT:
    """Do ``work`` on rank zero and give its result, or its error, to every rank.

    Args:
        work: its result must be picklable; it travels between processes of this job only.

    Raises:
        OgpsaError: whatever ``work`` raised on rank zero.
    """
    if world_size() == 1:
        return work()
    outcome: list[object] = [None, None]
    if is_main():
        try:
            outcome[0] = work()
        except OgpsaError as error:
            outcome[1] = error
        except stopping.StopRequested as error:
            # The others wait here, and where they wait for a device no signal reaches them.
            outcome[1] = Preempted(stopping.said(str(error)))
    dist.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[1], OgpsaError):
        raise outcome[1]
    return outcome[0]  # type: ignore[return-value]


def gather(value: ResultT) -> list[ResultT]:
    """The values of all ranks, by rank, on every rank; they must be picklable."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def stop_requested(device: torch.device) -> bool:
    """Whether any rank was asked to stop; the same answer on all ranks. Collective: one number is reduced."""
    asked = stopping.requested() is not None
    if world_size() == 1:
        return asked
    flag = torch.tensor([int(asked)], dtype=torch.int32, device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def stop_point(device: torch.device) -> None:
    """End here if any rank was asked to stop. Collective; for loops that all ranks run in step, within ``deferred``.

    Raises:
        Preempted: on all ranks.
    """
    if stop_requested(device):
        raise Preempted(stopping.said(stop_reason()))


def stop_reason() -> str:
    """The signal that asked to stop, as far as this rank knows it."""
    return stopping.requested() or "another process was asked to"
