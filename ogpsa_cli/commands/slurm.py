"""``ogpsa slurm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.run import SlurmConfig


def execute(config: SlurmConfig) -> int:
    """Write the jobs, and submit them if asked to."""
    from ogpsa_cli import console
    from ogpsa_cli.commands.run import show_recipes
    from pipelines.commands import slurm
    from pipelines.recipes.sbatch import SUBMIT

    if config.list:
        show_recipes(config.recipe)
        return 0
    result = slurm.run(config)
    width = max((len(step) for step, _ in result.submitted), default=0)
    details = [f"  {step:<{width}}  job {job}" for step, job in result.submitted]
    then = [] if result.submitted else [console.command_text(["bash", str(result.path / SUBMIT)])]
    console.finished("jobs", result, *then, details=[*details, f"  logs: {result.logs}"])
    return 0
