"""The work of ``ogpsa quickstart``: the shipped recipe of that name in this process, and what came out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import read_manifest
from pipelines.configs.run import RecipeConfig
from pipelines.configs.tools import QuickstartConfig
from pipelines.core.job import world_size
from pipelines.core.making import Made
from pipelines.core.placing import write_text_durably
from pipelines.evaluation.contract.answer import read_answers
from pipelines.evaluation.contract.results import read_results
from pipelines.recipes.chain import Chain, load_chain
from pipelines.recipes.in_process import run_steps
from pipelines.recipes.recipe import SHIPPED
from pipelines.recipes.script import shell_script, typed
from pipelines.reporting.findings import TestbedRun, describe_gain, describe_tax
from pipelines.reporting.table import ResultsTable, tabulate
from pipelines.reporting.writing import PAGE_FILE

RECIPE_FILE = SHIPPED / "quickstart.yaml"
_HEADING = "What ogpsa quickstart ran. A step that is done already says so and stops."
_WHY_ONE_THREAD = "the model is small: more threads would wait for each other"
_CAVEAT = "Brackets: 95 % intervals over the test items, of one training run each."


@dataclass(frozen=True)
class QuickstartResult(Made):
    """What the quickstart made in a directory and what it found; the manifest is that of the report in there."""

    table: ResultsTable
    sentences: tuple[str, ...]
    commands: tuple[str, ...]
    page: Path


def run(config: QuickstartConfig) -> QuickstartResult:
    """Run every step that is not done yet, and compare.

    Raises:
        OgpsaError: a step failed, or the directory holds something else.
    """
    if world_size() > 1:
        raise ConfigError("quickstart runs in one process", fix="start it without torchrun or srun")
    chain = _chain(config)
    up_to_date = all(run_steps(chain.steps, threads=chain.threads, overwrite=config.overwrite))
    folders = [step.out for step in chain.steps if step.command == "evaluate"]
    start, naive, *projected = measured = [TestbedRun(read_results(path), read_answers(path)) for path in folders]
    sentences = (
        describe_tax(start, naive, seed=config.seed),
        describe_gain(naive, projected[::-1], seed=config.seed),
    )
    script = shell_script(chain, heading=_HEADING, why_threads=_WHY_ONE_THREAD)
    write_text_durably(config.out / "commands.sh", script)
    write_text_durably(config.out / "findings.md", "\n\n".join([*sentences, _CAVEAT]) + "\n")
    report = chain.steps[-1].out
    table = tabulate([run.results for run in measured])
    return QuickstartResult(
        config.out, read_manifest(report), up_to_date, table, sentences, typed(chain.steps), report / PAGE_FILE
    )


def plan(config: QuickstartConfig) -> list[tuple[str, str]]:
    """The commands that would be run."""
    return [(f"{number}", line) for number, line in enumerate(typed(_chain(config).steps), start=1)]


def _chain(config: QuickstartConfig) -> Chain:
    return load_chain(RecipeConfig(recipe=str(RECIPE_FILE), out=config.out, variables={"seed": config.seed}))
