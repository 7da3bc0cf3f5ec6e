"""A recipe made ready to run: every step a command with its checked options, in order."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError
from pipelines.configs.commands import BY_NAME, STEPS
from pipelines.configs.run import RecipeConfig
from pipelines.configs.spelling import command_arguments
from pipelines.core import other_names
from pipelines.core.config import CommandConfig, resolve
from pipelines.recipes.recipe import Recipe, StepSpec, read_recipe, recipe_path
from pipelines.recipes.references import References, default_out, in_order

logger = logging.getLogger(__name__)

# These options apply to the whole recipe, never to a single step of it.
_NOT_FOR_STEPS = ("overwrite", "dry_run", "list", "describe")


@dataclass(frozen=True)
class Step:
    """One command of a chain.

    Attributes:
        name: the name of the step in the recipe.
        command: the ogpsa command, such as ``train-sft``.
        purpose: a few words that tell the reader what the step is for.
        config: the options of the command, checked.
        needs: the names of the steps whose results it uses.
    """

    name: str
    command: str
    purpose: str
    config: CommandConfig
    needs: tuple[str, ...] = ()

    @property
    def out(self) -> Path:
        """Where its artifact will lie."""
        found: Path = dict(self.config)["out"]
        return found

    @property
    def arguments(self) -> list[str]:
        """The arguments to type after ``ogpsa``."""
        return command_arguments(self.command, self.config)


@dataclass(frozen=True)
class Chain:
    """The steps in the order in which they run.

    Attributes:
        title: the recipe's name.
        description: what the recipe says of itself.
        out: the directory that holds everything the steps make.
        steps: the steps in order.
        text: the YAML of the recipe.
        threads: the number of threads that each process computes with; None leaves it as it is.
    """

    title: str
    description: str
    out: Path
    steps: tuple[Step, ...]
    text: str
    threads: int | None = None


def load_chain(config: RecipeConfig) -> Chain:
    """Read a recipe, apply what the command line changes in it, and check every step.

    Raises:
        InputError: there is no such recipe.
        ConfigError: something is wrong with the recipe; the error names all problems of all steps.
    """
    assert config.recipe is not None, "the configuration is checked for it"
    recipe, text = read_recipe(config.recipe)
    path = recipe_path(config.recipe)
    out, steps = make_steps(recipe, config, where=str(path))
    return Chain(
        title=path.stem, description=recipe.description, out=out, steps=tuple(steps), text=text, threads=recipe.threads
    )


def make_steps(recipe: Recipe, config: RecipeConfig, *, where: str) -> tuple[Path, list[Step]]:
    """The recipe's directory and its steps, in order.

    Args:
        recipe: the recipe as it was read.
        config: what the command line changes in it.
        where: the recipe's file, for errors.

    Raises:
        ConfigError: something is wrong with the recipe; the error names all problems of all steps.
    """
    problems: list[str] = []
    variables = dict(recipe.variables)
    for name, value in config.variables.items():
        known = name.replace("-", "_")
        if known not in variables:
            names = [*variables, *type(config).model_fields]
            has = f"it has {', '.join(variables)}" if variables else "it has none"
            problems.append(f"the recipe has no variable '{name}'{suggest(known, names)}; {has}")
        variables[known] = value
    specs = _changed(recipe.steps, config.steps, problems)
    references = References(recipe.out if config.out is None else str(config.out), variables, specs)
    needs: dict[str, set[str]] = {}
    steps: dict[str, Step] = {}
    for name, spec in specs.items():
        values, needs[name], unresolved = _options(name, spec, references, specs, problems)
        found = _checked(name, spec, values, unresolved, problems)
        if found is not None:
            steps[name] = Step(name, spec.command, spec.purpose, found, tuple(n for n in specs if n in needs[name]))
    try:
        order = in_order(needs)
    except ConfigError as error:
        problems += error.problems
        order = []
    problems += _shared_outputs(list(steps.values()))
    try:
        out = Path(str(references.expand("${out}", set()))).expanduser()
    except ConfigError as error:
        problems += error.problems
    problems += _unused_variables(references, variables)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), where=where)
    return out, [steps[name] for name in order]


def _unused_variables(references: References, variables: Mapping[str, Any]) -> list[str]:
    """Say which variables no step uses, and return what is wrong with their values."""
    unused = [name for name in variables if name not in references.used]
    problems: list[str] = []
    for name in unused:
        try:
            references.expand(variables[name], set())
        except ConfigError as error:
            problems += [f"variable '{name}': {problem}" for problem in error.problems]
    if unused and not problems:
        logger.warning("no step uses the recipe's variables %s", ", ".join(unused))
    return problems


def _changed(
    steps: Mapping[str, StepSpec], changes: Mapping[str, Mapping[str, Any]], problems: list[str]
) -> dict[str, StepSpec]:
    """The steps with the options that the command line gives them."""
    result = {
        name: spec.model_copy(update={"options": _in_our_names(spec.command, spec.options)})
        for name, spec in steps.items()
    }
    for name, options in changes.items():
        if name not in result:
            problems.append(f"--set steps.{name}: there is no step '{name}'{suggest(name, list(steps))}")
            continue
        same = {key.replace("-", "_"): value for key, value in result[name].options.items()}
        same |= {key.replace("-", "_"): value for key, value in _in_our_names(result[name].command, options).items()}
        result[name] = result[name].model_copy(update={"options": same})
    return result


def _in_our_names(command: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with our names in place of other programs', so that what stands for one option can replace it."""
    fields = BY_NAME[command].config_class().model_fields if command in STEPS else {}
    result: dict[str, Any] = {}
    for written, value in options.items():
        key = str(written).replace("-", "_")
        meaning = None if key in fields else other_names.find(fields, key)
        keeps_its_name = meaning is None or meaning.read is not None or meaning.field in result
        result[str(written) if keeps_its_name or meaning is None else meaning.field] = value
    return result


def _options(
    name: str, spec: StepSpec, references: References, specs: Mapping[str, StepSpec], problems: list[str]
) -> tuple[dict[str, Any], set[str], set[str]]:
    """The expanded options of a step, the steps that it needs, and the options that could not be expanded."""
    needs: set[str] = set()
    values: dict[str, Any] = {}
    unresolved: set[str] = set()
    for written, value in {"out": default_out(name), **spec.options}.items():
        key = str(written).replace("-", "_")
        if key in values or key in unresolved:
            problems.append(f"step '{name}': option '{key}' is given twice, once as '{written}'")
            continue
        try:
            values[key] = references.expand(value, needs)
        except ConfigError as error:
            problems += [f"step '{name}', option '{written}': {problem}" for problem in error.problems]
            unresolved.add(key)
    for other in spec.after:
        if other in specs:
            needs.add(other)
        else:
            problems.append(f"step '{name}', after: there is no step '{other}'{suggest(other, list(specs))}")
    return values, needs, unresolved


def _checked(
    name: str, spec: StepSpec, values: dict[str, Any], unresolved: set[str], problems: list[str]
) -> CommandConfig | None:
    """The options as the command's configuration; None if they are wrong, and then ``problems`` says why."""
    if spec.command not in STEPS:
        problems.append(
            f"step '{name}': there is no command '{spec.command}' for steps"
            f"{suggest(spec.command, STEPS)}; there are {', '.join(STEPS)}"
        )
        return None
    for key in _NOT_FOR_STEPS:
        if key in values:
            problems.append(f"step '{name}': '{key.replace('_', '-')}' is not for one step; give it to the recipe")
            return None
    try:
        found = resolve(BY_NAME[spec.command].config_class(), values=values)
    except ConfigError as error:
        # An option whose reference could not be resolved is not reported as missing as well.
        silent = [f"{shown} is required" for key in unresolved for shown in (_flag(key), key.upper())]
        problems += [
            f"step '{name}': {problem}" for problem in error.problems if not any(word in problem for word in silent)
        ]
        return None
    return None if unresolved else found


def _flag(key: str) -> str:
    return f"option --{key.replace('_', '-')}"


def _shared_outputs(steps: Sequence[Step]) -> list[str]:
    seen: dict[str, str] = {}
    problems = []
    for step in steps:
        place = os.path.abspath(step.out)
        if place in seen:
            problems.append(f"steps '{seen[place]}' and '{step.name}' both write to '{step.out}'")
        seen.setdefault(place, step.name)
    needs = {step.name: step.needs for step in steps}
    for place, name in seen.items():
        for parent in map(str, Path(place).parents):
            # Where the inner one is made first, the outer one finds a directory there that is no artifact.
            if parent in seen and seen[parent] not in _all_needs(name, needs):
                problems.append(
                    f"step '{name}' writes into '{os.path.relpath(parent)}', which step '{seen[parent]}' makes: "
                    f"let it come after that step (after: [{seen[parent]}]), or give it another 'out'"
                )
    return problems


def _all_needs(name: str, needs: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = set(needs.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def selected(steps: Sequence[Step], *, only: Sequence[str], start_at: str | None) -> list[Step]:
    """The steps that are asked for.

    Args:
        steps: all steps, in order.
        only: the names of steps to keep; empty for all.
        start_at: the name of the first step to keep; earlier steps are left out.

    Raises:
        ConfigError: there is no step with one of these names.
    """
    names = [step.name for step in steps]
    asked = [*only, *([start_at] if start_at is not None else [])]
    problems = [f"there is no step '{name}'{suggest(name, names)}" for name in asked if name not in names]
    if problems:
        raise ConfigError(problems, fix=f"the steps are {', '.join(names)}")
    first = 0 if start_at is None else names.index(start_at)
    return [step for step in steps[first:] if not only or step.name in only]
