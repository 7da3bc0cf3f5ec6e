"""Reads a study: a recipe, a grid of cells that change its steps, what it is repeated over, and its figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmarks.studies.placing import place
from data_registry.core.documents import Document, parse, read_text, suggest
from data_registry.core.errors import ConfigError
from pipelines.configs.run import RecipeConfig
from pipelines.core.config import resolve
from pipelines.recipes.chain import Step, make_steps
from pipelines.recipes.recipe import Recipe, StepSpec, read_recipe

FILE = "study.yaml"


class Cell(Document):
    """The changes to the recipe for one line of the table.

    Attributes:
        variables: values for variables of the recipe.
        steps: options by step, as ``--set steps.STEP.OPTION`` gives them.
    """

    variables: dict[str, Any] = Field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Study(Document):
    """A study as its file has it.

    Attributes:
        description: what the study is about.
        recipe: a file beside the study's, or the name of a recipe that comes with ogpsa.
        steps: further steps; a step with the name of one in the recipe replaces it.
        inputs: a module whose ``write(folder, variables)`` writes files that no command makes; the recipe's variable
            ``inputs`` holds the folder of these files.
        measure: the name of the ``evaluate`` step that gives the figures.
        figures: the headings of the table, each with the figure below it as ``SUITE.METRIC``.
        over: variables of the recipe, each with a list of values; every cell is run for every combination.
        cells: the lines of the table by name, in order.
    """

    description: str
    recipe: str
    steps: dict[str, StepSpec] = Field(default_factory=dict)
    inputs: str | None = None
    measure: str
    figures: dict[str, str] = Field(min_length=1)
    over: dict[str, list[Any]] = Field(default_factory=dict)
    cells: dict[str, Cell] = Field(min_length=1)


@dataclass(frozen=True)
class Run:
    """One cell in one repetition.

    Attributes:
        cell: the name of the cell.
        repetition: the values that the run is repeated over, such as ``seed=0``.
        variables: the variables of the recipe with their values in this run.
        inputs: the folder of the files that the study writes, None where it writes none.
        steps: the steps to run; the measured one is the last.
    """

    cell: str
    repetition: str
    variables: Mapping[str, Any]
    inputs: Path | None
    steps: tuple[Step, ...]

    @property
    def results(self) -> Path:
        """The path at which the measured results will lie."""
        return self.steps[-1].out


@dataclass(frozen=True)
class Grid:
    """A study made ready to run.

    Attributes:
        study: the study as its file has it.
        threads: the number of threads that the recipe wants, None where it does not say.
        runs: the runs of all cells, repetition by repetition.
    """

    study: Study
    threads: int | None
    runs: tuple[Run, ...]


def read_grid(folder: Path, work: Path, sets: Sequence[str] = ()) -> Grid:
    """Read a study, make all its runs and check every option of every step.

    Args:
        folder: the folder of the study.
        work: the absolute directory that everything is written to.
        sets: changes to all cells: ``NAME=VALUE`` for variables, ``steps.STEP.OPTION=VALUE`` for steps; for a variable
            that the study repeats over, VALUE is the value or list of values to take instead.

    Raises:
        InputError: there is no such study, or no such recipe.
        ConfigError: there are problems in the cells; the message lists all of them.
    """
    path = folder / FILE
    study = parse(Study, read_text(path, "study"), what="study", where=str(path))
    beside = folder / study.recipe
    recipe, _ = read_recipe(str(beside) if beside.is_file() else study.recipe)
    recipe = recipe.model_copy(update={"steps": {**recipe.steps, **study.steps}})
    if study.measure not in recipe.steps:
        problem = f"measure: there is no step '{study.measure}'{suggest(study.measure, list(recipe.steps))}"
        raise ConfigError(problem, where=str(path))
    given = resolve(RecipeConfig, flags={"recipe": study.recipe, "out": work}, sets=sets)
    over = {name: _as_list(given.variables.get(name, values)) for name, values in study.over.items()}
    problems: list[str] = []
    runs = []
    for values in itertools.product(*over.values()):
        repeated = dict(zip(over, values, strict=True))
        for name, cell in study.cells.items():
            try:
                runs.append(_run(study, recipe, given, name, cell, repeated, where=str(path)))
            except ConfigError as error:
                problems += [f"cell '{name}': {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), where=str(path))
    return Grid(study, recipe.threads, tuple(runs))


def _run(
    study: Study, recipe: Recipe, given: RecipeConfig, name: str, cell: Cell, repeated: Mapping[str, Any], *, where: str
) -> Run:
    assert given.out is not None
    repetition = ", ".join(f"{key}={value}" for key, value in repeated.items())
    changed = {**given.variables, **cell.variables, **repeated}
    inputs = None
    if study.inputs is not None:
        # Cells that differ by options of steps alone read the same files.
        inputs = given.out / "inputs" / ("-".join(f"{key}-{value}" for key, value in changed.items()) or "all")
        changed["inputs"] = str(inputs)
    names = [*given.steps, *(step for step in cell.steps if step not in given.steps)]
    options = {step: {**cell.steps.get(step, {}), **given.steps.get(step, {})} for step in names}
    config = given.model_copy(update={"variables": changed, "steps": options})
    _, steps = make_steps(recipe, config, where=where)
    placed = place(list(_needed(steps, study.measure)), given.out)
    return Run(name, repetition, {**recipe.variables, **changed}, inputs, tuple(placed))


def _needed(steps: Sequence[Step], last: str) -> Iterator[Step]:
    """The steps that a step needs, in order, and then the step itself."""
    by_name = {step.name: step for step in steps}
    names, waiting = {last}, [last]
    while waiting:
        new = set(by_name[waiting.pop()].needs) - names
        names |= new
        waiting += new
    yield from (step for step in steps if step.name in names and step.name != last)
    yield by_name[last]


def _as_list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]
