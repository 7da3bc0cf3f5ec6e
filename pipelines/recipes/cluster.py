"""What a cluster profile is: a YAML file that says how jobs are started on a Slurm cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from data_registry.core.documents import Document, parse, read_text, suggest
from data_registry.core.errors import ConfigError
from pipelines.configs.commands import BY_NAME
from pipelines.recipes.chain import Step

# Slurm's forms of a time limit: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].
_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d\d?(:\d\d){0,2}")
_MEMORY = re.compile(r"\d+[KMGT]?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Resources(Document):
    """What a job asks Slurm for; below ``steps`` of a profile, only the values that differ.

    Attributes:
        partition: Slurm's partition.
        account: the account that pays.
        qos: quality of service.
        time: time limit in Slurm's notation, such as ``"24:00:00"`` or ``"2-00:00:00"``.
        nodes: the number of machines.
        gpus_per_node: the number of GPUs of each machine; one task is started for each.
        tasks_per_node: the number of processes on each machine, if it is not one per GPU.
        cpus_per_task: the number of cores for each process.
        memory: the memory of each machine, such as ``"200G"``; ``"0"`` is all of it.
        sbatch: further options of sbatch, such as ``--constraint=h100``.
        srun: further options of srun, such as ``--cpu-bind=none``.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    nodes: int | None = Field(default=None, ge=1)
    gpus_per_node: int | None = Field(default=None, ge=0)
    tasks_per_node: int | None = Field(default=None, ge=1)
    cpus_per_task: int | None = Field(default=None, ge=1)
    memory: str | None = None
    sbatch: list[str] | None = None
    srun: list[str] | None = None

    @field_validator("time")
    @classmethod
    def _check_time(cls, value: str | None) -> str | None:
        if value is not None and not _TIME.fullmatch(value):
            raise ValueError(f"needs a time such as '24:00:00' or '2-00:00:00', in quotes, got {value!r}")
        return value

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: str | None) -> str | None:
        if value is not None and not _MEMORY.fullmatch(value):
            raise ValueError(f"needs a size such as '200G', or '0' for all, got {value!r}")
        return value

    @field_validator("partition", "account", "qos")
    @classmethod
    def _check_word(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w.,@:+-]+", value):
            raise ValueError(f"needs one word, got {value!r}")
        return value

    @field_validator("sbatch", "srun")
    @classmethod
    def _check_options(cls, value: list[str] | None) -> list[str] | None:
        for item in value or ():
            if not item.startswith("-") or "\n" in item:
                raise ValueError(f"needs options such as '--constraint=h100', each one line, got {item!r}")
        return value


class Cluster(Resources):
    """A cluster profile.

    Attributes:
        setup: shell lines before the command: modules, activation of an environment. The job fails if one fails.
        environment: variables for the jobs.
        signal_before: seconds before the time limit at which jobs are told to save and requeue themselves.
        requeue: whether a preempted job goes back into the queue by itself.
        steps: what differs for some steps, by the step's name or its command.
    """

    time: str
    setup: list[str] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    signal_before: int = Field(default=120, ge=0, le=65535)
    requeue: bool = True
    steps: dict[str, Resources] = Field(default_factory=dict)

    @field_validator("environment", mode="before")
    @classmethod
    def _check_environment(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name, content in value.items():
            if not _VARIABLE.fullmatch(str(name)):
                raise ValueError(f"'{name}' is no name of a variable")
            if isinstance(content, bool | dict | list) or content is None:
                raise ValueError(f"{name} needs text or a number, got {content!r}")
        return {str(name): str(content) for name, content in value.items()}

    @model_validator(mode="after")
    def _check_steps(self) -> Cluster:
        if not self.requeue and "signal_before" in self.model_fields_set:
            raise ValueError("signal-before needs requeue: true")
        return self


def read_cluster(path: Path) -> tuple[Cluster, str]:
    """A cluster profile and its text.

    Raises:
        InputError: it cannot be read.
        ConfigError: it is not a valid profile; the error lists every problem.
    """
    text = read_text(path, "cluster profile")
    return parse(Cluster, text, what="cluster profile", where=str(path)), text


def check_names(cluster: Cluster, steps: list[Step], *, where: str) -> None:
    """Refuse a profile that speaks of steps that the chain does not have.

    Raises:
        ConfigError: the profile names such steps; the error lists them.
    """
    known = list(dict.fromkeys([*(step.name for step in steps), *(step.command for step in steps)]))
    problems = [
        f"steps.{name}: the recipe has no step and no command '{name}'{suggest(name, known)}"
        for name in cluster.steps
        if name not in known
    ]
    if problems:
        raise ConfigError(problems, where=where, fix=f"steps and commands of the recipe: {', '.join(known)}")


def resources_of(cluster: Cluster, step: Step) -> Resources:
    """What a step's job asks for: the profile's values, then those of its command, then those of its name.

    A command that always runs in one process gets one task on one node without GPUs. A command that could use several
    processes, but for which the recipe says ``num-procs: 1``, gets one task with one GPU.
    """
    values = {name: getattr(cluster, name) for name in Resources.model_fields}
    is_spread = BY_NAME[step.command].takes_processes()
    if not is_spread or dict(step.config)["num_procs"] == 1:
        gpus = 1 if is_spread and values["gpus_per_node"] else 0
        values |= {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": gpus}
    for name in (step.command, step.name):
        changes = cluster.steps.get(name)
        if changes is not None:
            values |= {key: getattr(changes, key) for key in changes.model_fields_set}
    return Resources.model_validate(values)


def tasks_per_node(resources: Resources) -> int:
    """The number of processes on each machine: as asked for, otherwise one per GPU, and at least one."""
    return resources.tasks_per_node or resources.gpus_per_node or 1
