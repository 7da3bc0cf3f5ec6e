"""The work of ``ogpsa slurm``: a chain of commands as Slurm jobs that wait for each other."""

from __future__ import annotations

import shutil

from data_registry.core.errors import ConfigError
from pipelines.configs.run import SlurmConfig
from pipelines.core.making import Wanted, make
from pipelines.recipes.cluster import resources_of, tasks_per_node
from pipelines.recipes.jobs import (
    KIND,
    SlurmResult,
    jobs_directory,
    jobs_inputs,
    places,
    read_chain_and_cluster,
    script_texts,
    submit,
    write_scripts,
)
from pipelines.recipes.sbatch import SUBMIT


def run(config: SlurmConfig) -> SlurmResult:
    """Write the scripts of a recipe for a cluster, and submit them if asked to.

    Raises:
        OgpsaError: the recipe or the profile cannot be used, or Slurm refuses a job; then no job stays submitted.
    """
    if config.submit and shutil.which("sbatch") is None:
        raise ConfigError(
            "there is no sbatch on this machine, so that nothing can be submitted from here",
            fix=f"leave out --submit, and run {SUBMIT} where Slurm is",
        )
    chain, cluster = read_chain_and_cluster(config)
    # The directory in which the command is typed affects what the jobs do, so it is recorded in the configuration.
    config = config.model_copy(update={"directory": jobs_directory(config)})
    target, logs = places(config, chain)
    texts = dict(script_texts(chain, cluster, config, logs))
    wanted = Wanted(target, KIND, config, jobs_inputs(config), overwrite=config.overwrite)
    made = make(wanted, lambda writer: write_scripts(writer, chain, texts))
    return SlurmResult(made.path, made.manifest, made.up_to_date, logs, submit(target) if config.submit else ())


def plan(config: SlurmConfig) -> list[tuple[str, str]]:
    """The jobs that would be written, and what they ask for."""
    chain, cluster = read_chain_and_cluster(config)
    target, _ = places(config, chain)
    rows = [("scripts", str(target))]
    for step in chain.steps:
        resources = resources_of(cluster, step)
        asked = f"{resources.nodes or 1} x {tasks_per_node(resources)} tasks"
        gpus = f", {resources.gpus_per_node} GPUs per node" if resources.gpus_per_node else ""
        after = f", after {', '.join(step.needs)}" if step.needs else ""
        rows.append((step.name, f"{step.command}: {asked}{gpus}, {resources.time}{after}"))
    return rows
