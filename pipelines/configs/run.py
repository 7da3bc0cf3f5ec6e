"""Options of the commands that work with recipes: run and slurm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import model_validator

from pipelines.core.config import CommandConfig, option


class RecipeConfig(CommandConfig):
    """What names a recipe and changes it."""

    # A name that is no option is a variable of the recipe.
    takes_other_names: ClassVar[bool] = False

    recipe: str | None = option(
        None, "A recipe file (YAML), or the name of one that comes with ogpsa (--list shows them).", positional=True
    )
    out: Path | None = option(
        None, "Directory for everything that the steps make; by default the recipe's own.", panel="Output", short="o"
    )
    variables: dict[str, Any] = option(
        {}, "Give a variable of the recipe another value; --set NAME=VALUE will do.", panel="Recipe"
    )
    steps: dict[str, dict[str, Any]] = option(
        {}, "Change an option of one step, as --set steps.sft.learning-rate=1e-5.", panel="Recipe"
    )
    overwrite: bool = option(
        False,
        "Make every step anew, also what is finished and what was made with other settings.",
        panel="Output",
        runtime=True,
    )
    list: bool = option(
        False,
        "List the recipes that come with ogpsa, or those with the word given as RECIPE, and stop.",
        panel="Recipe",
    )

    @model_validator(mode="before")
    @classmethod
    def _collect_variables(cls, values: Any) -> Any:
        """Take keys that are not options as variables; loading the recipe checks whether it has them."""
        if not isinstance(values, Mapping):
            return values
        foreign = {name: value for name, value in values.items() if name not in cls.model_fields}
        own = {name: value for name, value in values.items() if name in cls.model_fields}
        given = own.get("variables", {})
        if foreign and isinstance(given, Mapping):
            own["variables"] = {**given, **foreign}
        return own

    @model_validator(mode="after")
    def _check(self) -> RecipeConfig:
        if self.recipe is None and not self.list:
            raise ValueError("name a recipe: a YAML file, or one of those that --list shows")
        return self


class RunConfig(RecipeConfig):
    """Run a recipe: a chain of ogpsa commands in which later steps use what earlier ones made.

    Every step is checked before the first one starts. A step that is up to date says so and costs nothing more; the
    first that fails ends the run with its exit code, and the same command goes on from there.
    """

    examples: ClassVar[Sequence[str]] = (
        "ogpsa run --list",
        "ogpsa run testbed --out demo",
        "ogpsa run testbed --show > mine.yaml                     # a recipe to start from",
        "ogpsa run mine.yaml --dry-run                            # the graph, and what is done already",
        "ogpsa run mine.yaml --set seed=1 --set steps.sft.learning-rate=1e-5 --out runs/seed1",
    )

    only: list[str] = option([], "Run this step alone; repeat for several.", panel="Recipe")
    start_at: str | None = option(None, "Leave out the steps before this one.", panel="Recipe")
    dry_run: bool = option(False, "Check every step, show the graph and what is up to date, then stop.", panel="Output")
    show: bool = option(False, "Print the recipe's text and stop.", panel="Recipe")


class SlurmConfig(RecipeConfig):
    """Write a recipe as Slurm jobs, one for each step, that wait for each other; and submit them with --submit.

    A job that comes near its time limit is told to save, goes back into the queue and goes on from there. One that
    fails stops those that need it.
    """

    examples: ClassVar[Sequence[str]] = (
        "ogpsa slurm paper --profile cluster.yaml --dry-run",
        "ogpsa slurm mine.yaml --profile cluster.yaml --out runs/mine            # writes runs/mine/jobs/",
        "ogpsa slurm mine.yaml --profile cluster.yaml --out runs/mine --submit",
    )

    profile: Path | None = option(None, "YAML file that describes the cluster's jobs.", panel="Slurm", short="p")
    submit: bool = option(False, "Submit the jobs and print their ids.", panel="Slurm", runtime=True)
    jobs: Path | None = option(None, "Directory for the scripts; by default 'jobs' in --out.", panel="Slurm")
    directory: Path | None = option(
        None, "Directory in which the jobs run; by default where this is typed.", panel="Slurm"
    )
    dry_run: bool = option(False, "Check everything, show the jobs, then stop.", panel="Output", runtime=True)

    @model_validator(mode="after")
    def _check_profile(self) -> SlurmConfig:
        if self.profile is None and not self.list:
            raise ValueError("--profile is required: the YAML file that describes the cluster's jobs")
        return self
