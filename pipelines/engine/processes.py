"""The process group of a job, the device of each process, and the agreement of all ranks on a request to stop."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from data_registry.core import stopping
from data_registry.core.errors import ConfigError, Preempted
from pipelines.core.job import world_size
from pipelines.engine import compile_locks

# Rank zero may tokenise or hash for long while the others wait; a dead rank is noticed by the launcher.
_TIMEOUT = timedelta(hours=24)


def start() -> torch.device:
    """Join the job's process group, if it has several processes, and choose this process's device.

    Raises:
        ConfigError: there are more processes on this machine than GPUs.
    """
    if torch.cuda.is_available():
        device = torch.device("cuda", _own_gpu())
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


def _own_gpu() -> int:
    """The index of this process's GPU among those that are visible."""
    local, visible = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= visible:
        raise ConfigError(
            f"process {local + 1} of this machine has no GPU of its own: {visible} can be seen",
            where=f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}",
            fix=f"start at most {visible} processes here (--num-procs {visible}), or hide all GPUs "
            "(CUDA_VISIBLE_DEVICES=) to compute on processors",
        )
    return local


def start_deepspeed() -> None:
    """Let DeepSpeed take over the process group; a lone process gets a group of one, since DeepSpeed needs a group.

    Call it before anything reads a DeepSpeed configuration: reading one takes the world size from the group.
    """
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=_TIMEOUT)
        _leave_at_exit()
    # DeepSpeed's engine asks for the variable, which only launchers set.
    os.environ.setdefault("LOCAL_RANK", "0")
    # DeepSpeed compiles its CPU collective when it is first used.
    compile_locks.release_abandoned()
    import deepspeed

    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _leave_at_exit() -> None:
    # A process that ends while the group's threads still run is sometimes aborted, after all its work is done.
    atexit.register(stop)


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
