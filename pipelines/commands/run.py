"""The work of ``ogpsa run``: a chain of commands, checked as a whole; the command line starts the steps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_registry.core.errors import ConfigError
from pipelines.configs.run import RunConfig
from pipelines.core.job import world_size
from pipelines.recipes.chain import Chain, Step, load_chain, selected
from pipelines.recipes.recipe import read_recipe, shipped_names
from pipelines.recipes.state import State, states_of


@dataclass(frozen=True)
class Listed:
    """A recipe that comes with ogpsa, as the listing shows it."""

    name: str
    description: str
    steps: tuple[str, ...]
    variables: Mapping[str, object]


def prepare(config: RunConfig) -> tuple[Chain, list[Step]]:
    """The chain, and those of its steps that are asked for.

    Raises:
        OgpsaError: the recipe cannot be used; nothing has been started.
    """
    if world_size() > 1 or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        raise ConfigError(
            "run starts the processes of each step itself and is one process",
            fix="start it without torchrun or srun; as a chain of Slurm jobs:  ogpsa slurm RECIPE --profile FILE",
        )
    chain = load_chain(config)
    return chain, selected(chain.steps, only=config.only, start_at=config.start_at)


def plan(config: RunConfig) -> list[tuple[str, str]]:
    """The commands that would be run, by step."""
    import shlex

    _, steps = prepare(config)
    return [(step.name, shlex.join(["ogpsa", *step.arguments])) for step in steps]


def states(steps: Sequence[Step]) -> dict[str, State]:
    """How far each step is."""
    return states_of(steps)


def listing() -> list[Listed]:
    """The recipes that come with ogpsa."""
    found = []
    for name in shipped_names():
        recipe, _ = read_recipe(name)
        found.append(Listed(name, recipe.description, tuple(recipe.steps), recipe.variables))
    return found
