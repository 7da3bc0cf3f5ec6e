"""Recipe of ``ogpsa quickstart``: the whole chain on the embedded testbed, and what came out of it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import read_manifest
from pipelines.configs.tools import QuickstartConfig
from pipelines.core.artifact import command_line, record_command
from pipelines.core.job import world_size
from pipelines.core.making import Made
from pipelines.core.placing import write_text_durably
from pipelines.evaluation.contract.answer import read_answers
from pipelines.evaluation.contract.results import read_results
from pipelines.recipes.quickstart_steps import Step, results_folders, steps
from pipelines.reporting.findings import TestbedRun, describe_gain, describe_tax
from pipelines.reporting.table import ResultsTable, tabulate
from pipelines.reporting.writing import PAGE_FILE

logger = logging.getLogger(__name__)

COMMANDS_FILE = "commands.sh"
FINDINGS_FILE = "findings.md"
_CAVEAT = "Brackets: 95 % intervals over the test items, of one training run each."


@dataclass(frozen=True)
class QuickstartResult(Made):
    """What the quickstart made in a directory, and what it found; the manifest is of the report in there.

    Attributes:
        table: runs by figures.
        sentences: what the comparison shows.
        commands: what was run, ready for a shell.
        page: the report to look at.
    """

    table: ResultsTable
    sentences: tuple[str, ...]
    commands: tuple[str, ...]
    page: Path


def run(config: QuickstartConfig) -> QuickstartResult:
    """Run every step that is not done yet, and report.

    Raises:
        OgpsaError: a step failed, or the directory holds something else.
    """
    if world_size() > 1:
        raise ConfigError("quickstart runs in one process", fix="start it without torchrun or srun")
    chain = steps(config.out, config.seed)
    with _one_thread():
        up_to_date = [_run(step, number, len(chain), config) for number, step in enumerate(chain, start=1)]
    measured = [_measured(folder) for folder in results_folders(config.out)]
    sentences = _sentences(measured, config.seed)
    report = config.out / "report"
    commands = tuple(shlex.join(["ogpsa", *step.arguments]) for step in chain)
    write_text_durably(config.out / COMMANDS_FILE, _script(config.out, commands))
    write_text_durably(config.out / FINDINGS_FILE, "\n\n".join([*sentences, _CAVEAT]) + "\n")
    return QuickstartResult(
        path=config.out,
        manifest=read_manifest(report),
        up_to_date=all(up_to_date),
        table=tabulate([run.results for run in measured]),
        sentences=sentences,
        commands=commands,
        page=report / PAGE_FILE,
    )


def plan(config: QuickstartConfig) -> list[tuple[str, str]]:
    """The commands that would be run."""
    chain = steps(config.out, config.seed)
    return [(f"{number}", shlex.join(["ogpsa", *step.arguments])) for number, step in enumerate(chain, start=1)]


def _run(step: Step, number: int, total: int, config: QuickstartConfig) -> bool:
    """Run one step as its command would, and say whether it was done before."""
    recipe: Any = importlib.import_module("pipelines.commands." + step.command.replace("-", "_"))
    typed = command_line()[1:]
    logger.info("[%d/%d] %s", number, total, step.purpose)
    # The manifest of what a step makes has the step's own command.
    record_command(step.arguments)
    try:
        result = recipe.run(step.config.model_copy(update={"overwrite": config.overwrite}))
    finally:
        record_command(typed)
    if result.up_to_date:
        logger.info("      up to date: %s", result.path)
    return bool(result.up_to_date)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: in so small a model more of them wait for each other longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(folder: Path) -> TestbedRun:
    return TestbedRun(read_results(folder), read_answers(folder))


def _sentences(measured: Sequence[TestbedRun], seed: int) -> tuple[str, ...]:
    start, naive, *projected = measured
    return describe_tax(start, naive, seed=seed), describe_gain(naive, projected[::-1], seed=seed)


def _script(out: Path, commands: Sequence[str]) -> str:
    lines = [
        "#!/usr/bin/env bash",
        "# What ogpsa quickstart ran. A step that is done already says so and stops.",
        "set -eu",
    ]
    if not out.is_absolute():
        back = os.path.relpath(Path.cwd(), out)
        lines.append(f'cd -- "$(dirname -- "$0")"/{shlex.quote(back)}')
    lines.append("export OMP_NUM_THREADS=1  # the model is small: more threads would wait for each other")
    return "\n".join([*lines, *commands]) + "\n"
