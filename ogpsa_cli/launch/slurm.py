"""Translates what srun tells its tasks into the variables that torch's launchers set."""

from __future__ import annotations

import re
from collections.abc import Mapping

from data_registry.core.errors import ConfigError
from ogpsa_cli.launch import rendezvous

_FIRST_PORT, _NUM_PORTS, _NUM_ATTEMPTS = 20000, 12000, 12
# They keep two steps of one job, and two consecutive jobs, from colliding at their second attempt.
_STEP_STRIDE, _ATTEMPT_STRIDE = 101, 1009


def is_task_of_several(env: Mapping[str, str]) -> bool:
    """Whether this process is one of several tasks that srun started.

    A batch script also has ``SLURM_NTASKS`` and ``SLURM_PROCID=0`` but is alone: only a step has a step id.
    """
    in_step = "SLURM_STEP_ID" in env or "SLURM_STEPID" in env
    return in_step and "SLURM_PROCID" in env and num_tasks(env) > 1


def num_tasks(env: Mapping[str, str]) -> int:
    """The number of tasks of this step."""
    return _number(env, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", default=1)


def translate(env: Mapping[str, str]) -> dict[str, str]:
    """The variables ``RANK``, ``WORLD_SIZE`` and the like for this task.

    The address is the first host of the step and the port is the first of :func:`ports`, so that all tasks agree on
    them and two jobs on one machine do not collide. ``MASTER_ADDR`` and ``MASTER_PORT`` are kept if the user set them.

    Raises:
        ConfigError: a variable that srun always sets is missing or damaged.
    """
    local_rank = _number(env, "SLURM_LOCALID")
    visible = [device for device in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if device.strip()]
    if len(visible) == 1:
        # srun --gpus-per-task shows each task its own GPU, which is number 0 there.
        local_rank = 0
    hosts = expand_hosts(env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or "")
    if not hosts and "MASTER_ADDR" not in env:
        raise ConfigError("srun's node list is missing: SLURM_STEP_NODELIST and SLURM_JOB_NODELIST are not set")
    return {
        "RANK": str(_number(env, "SLURM_PROCID")),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(num_tasks(env)),
        "LOCAL_WORLD_SIZE": str(_tasks_on_this_node(env)),
        "MASTER_ADDR": env.get("MASTER_ADDR") or hosts[0],
        "MASTER_PORT": env.get("MASTER_PORT") or str(ports(env)[0]),
    }


def ports(env: Mapping[str, str]) -> list[int]:
    """The ports that a step may use, in order. The first is computed from the job and step, the others from the first.

    They lie below the ports that systems assign by themselves (from 32768), any of which may be taken at any moment.
    """
    first = _number(env, "SLURM_JOB_ID", "SLURM_JOBID") + _STEP_STRIDE * _step(env)
    return [_FIRST_PORT + (first + attempt * _ATTEMPT_STRIDE) % _NUM_PORTS for attempt in range(_NUM_ATTEMPTS)]


def meet(env: Mapping[str, str]) -> str:
    """The port on which the tasks of this step meet: the first of :func:`ports` that is free where rank zero is.

    A collective call over the tasks, to be made with the translated variables.

    Raises:
        InputError: the tasks do not find each other.
    """
    job, restarts = _number(env, "SLURM_JOB_ID", "SLURM_JOBID"), _number(env, "SLURM_RESTART_COUNT", default=0)
    port = rendezvous.agree(
        ports(env),
        host=env["MASTER_ADDR"],
        rank=int(env["RANK"]),
        world_size=int(env["WORLD_SIZE"]),
        word=f"ogpsa job {job}.{_step(env)} start {restarts}",
    )
    return str(port)


def _step(env: Mapping[str, str]) -> int:
    return _number(env, "SLURM_STEP_ID", "SLURM_STEPID", default=0)


def _number(env: Mapping[str, str], *names: str, default: int | None = None) -> int:
    for name in names:
        if name in env:
            try:
                return int(env[name])
            except ValueError as error:
                raise ConfigError(f"{name} is '{env[name]}', where a number is expected") from error
    if default is None:
        raise ConfigError(f"{names[0]} is not set, though this looks like a task of srun")
    return default


def _tasks_on_this_node(env: Mapping[str, str]) -> int:
    """The number of tasks on this node, from a list such as ``2(x3),1`` that gives the tasks of each node in turn."""
    text = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE") or ""
    counts: list[int] = []
    for count, repeat in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(repeat or 1)
    node = _number(env, "SLURM_NODEID", default=0)
    return counts[node] if node < len(counts) else num_tasks(env)


def expand_hosts(nodelist: str) -> list[str]:
    """The host names of a Slurm node list, in order: ``a[01-02],b`` gives a01, a02, b."""
    hosts: list[str] = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist.strip()):
        hosts += _expand(item)
    return hosts


def _expand(item: str) -> list[str]:
    match = re.match(r"([^\[]*)\[([^\]]*)\](.*)$", item)
    if match is None:
        return [item]
    head, ranges, tail = match.groups()
    names = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        last = last or first
        numbers = range(int(first), int(last) + 1) if first.isdigit() and last.isdigit() else []
        names += [f"{head}{number:0{len(first)}d}" for number in numbers] or [f"{head}{part}"]
    return [name + rest for name in names for rest in _expand(tail)]
