"""Runs the steps of a chain in this process, so that libraries are imported once: for small models imports dominate."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from data_registry.core.errors import ConfigError
from pipelines.core.artifact import command_line, record_command
from pipelines.core.job import world_size
from pipelines.recipes.chain import Step

logger = logging.getLogger(__name__)


def run_steps(steps: Sequence[Step], *, threads: int | None = None, overwrite: bool = False) -> list[bool]:
    """Run steps one after another, each as its command would.

    Args:
        steps: the steps in order.
        threads: the number of threads to compute with; None leaves it as it is.
        overwrite: whether to make finished artifacts again.

    Returns:
        For each step, whether it had been done before.

    Raises:
        ConfigError: this process is one of several, or a step wants several.
        OgpsaError: a step failed; those before it are done.
    """
    if world_size() > 1:
        raise ConfigError("the steps run in one process", fix="start it without torchrun or srun")
    several = [step.name for step in steps if (dict(step.config).get("num_procs") or 1) > 1]
    if several:
        raise ConfigError(
            f"{', '.join(several)}: num-procs asks for several processes, and the steps run in one",
            fix="ogpsa run starts the processes of each step",
        )
    with _threads(threads):
        return [_run(step, number, len(steps), overwrite) for number, step in enumerate(steps, start=1)]


def _run(step: Step, number: int, total: int, overwrite: bool) -> bool:
    """Run one step, and say whether it was done before."""
    command: Any = importlib.import_module("pipelines.commands." + step.command.replace("-", "_"))
    typed = command_line()[1:]
    logger.info("[%d/%d] %s", number, total, step.purpose or step.name)
    # The manifest of the artifact that a step makes records the command of that step.
    record_command(step.arguments)
    try:
        result = command.run(step.config.model_copy(update={"overwrite": overwrite}))
    finally:
        record_command(typed)
    if result.up_to_date:
        logger.info("      up to date: %s", result.path)
    return bool(result.up_to_date)


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    if number is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
