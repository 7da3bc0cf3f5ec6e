"""What a command's help needs, derived from its configuration class."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from ogpsa_cli.flags import Flag, flags_of
from pipelines.configs.commands import Command


@dataclass(frozen=True)
class Page:
    """A command's description, flags and examples."""

    description: str
    flags: Sequence[Flag]
    examples: Sequence[str]


def page_of(command: Command) -> Page:
    """The page of a command. Importing its configuration class takes most of the time that showing the help takes."""
    config_class = command.config_class()
    description = inspect.cleandoc(config_class.__doc__ or "")
    return Page(description, flags_of(config_class), list(config_class.examples))
