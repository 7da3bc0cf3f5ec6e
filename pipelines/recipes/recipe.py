"""What a recipe is: a YAML file of variables and named steps, each a command with its options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from data_registry.core.documents import Document, field_names, parse, read_text, suggest
from data_registry.core.errors import InputError

SHIPPED = Path(__file__).parent / "shipped"
# Step names are used in file names, in job names and in references after ``${steps.``.
_STEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class StepSpec(Document):
    """One step as the recipe has it.

    Attributes:
        command: the ogpsa command, such as ``train-sft``.
        purpose: a few words for people.
        options: the command's options; ``${NAME}`` and ``${steps.NAME.OPTION}`` stand for what is given elsewhere.
        after: steps that must be done before, beside those that the options refer to.
    """

    command: str
    purpose: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    after: list[str] = Field(default_factory=list)


class Recipe(Document):
    """A chain of commands.

    Attributes:
        description: what the recipe makes; listings show it.
        out: directory for everything that the steps make, unless they say otherwise; ``${out}`` in options.
        threads: how many threads each process of every step computes with; None leaves it to PyTorch and launcher.
        variables: values that the options refer to as ``${NAME}``; ``--set NAME=VALUE`` gives others.
        steps: the steps by name, in order.
    """

    description: str
    out: str
    threads: int | None = Field(default=None, ge=1)
    variables: dict[str, Any] = Field(default_factory=dict)
    steps: dict[str, StepSpec] = Field(min_length=1)

    @field_validator("steps", mode="before")
    @classmethod
    def _check_names(cls, steps: Any) -> Any:
        for name in steps if isinstance(steps, dict) else ():
            if not _STEP_NAME.fullmatch(str(name)):
                raise ValueError(f"a step cannot be named '{name}': take letters, digits, - and _")
        return {str(name): step for name, step in steps.items()} if isinstance(steps, dict) else steps

    @model_validator(mode="after")
    def _check_variables(self) -> Recipe:
        for name in self.variables:
            if not _VARIABLE_NAME.fullmatch(name):
                raise ValueError(f"a variable cannot be named '{name}': take letters, digits and _")
            if name in RESERVED:
                raise ValueError(
                    f"a variable cannot be named '{name}': --set {name}=... means an option of the command"
                )
        return self

    @field_validator("variables", mode="before")
    @classmethod
    def _same_name(cls, variables: Any) -> Any:
        if not isinstance(variables, dict):
            return variables
        return field_names(variables)


# Names that --set already uses for options of the command.
RESERVED = frozenset(
    ("recipe", "out", "variables", "steps", "overwrite", "list", "only", "start_at", "dry_run", "show",
     "profile", "jobs", "submit", "directory")
)  # fmt: skip


def shipped_names() -> list[str]:
    """Names of the recipes that come with ogpsa."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe: the one at this path, or the one of this name that comes with ogpsa.

    Raises:
        InputError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    names = shipped_names()
    if name in names:
        # A directory of this name is not a recipe; ogpsa quickstart makes such a directory, for instance.
        return SHIPPED / f"{name}.yaml"
    if path.exists():
        return path
    # A recipe's name with something appended, such as a model, differs from it by too many letters to be suggested.
    meant = suggest(name, names) or suggest(name.partition("-")[0], names)
    raise InputError(
        f"there is no recipe '{name}': neither a file nor a name that ogpsa knows{meant}",
        fix="see them with:  ogpsa run --list",
    )


def read_recipe(name: str) -> tuple[Recipe, str]:
    """A recipe and its text.

    Args:
        name: a path, or the name of a recipe that comes with ogpsa.

    Raises:
        InputError: there is no such recipe, or it cannot be read.
        ConfigError: it is not a valid recipe; the error lists every problem.
    """
    path = recipe_path(name)
    text = read_text(path, "recipe")
    return parse(Recipe, text, what="recipe", where=str(path)), text
