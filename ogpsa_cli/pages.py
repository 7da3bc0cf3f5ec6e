"""What a command's help needs, derived from its configuration class."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from ogpsa_cli.flags import Flag, flags_of
from pipelines.configs.commands import Command
from pipelines.configs.common_options import COMMON


@dataclass(frozen=True)
class Page:
    """A command's name, description, flags and examples."""

    name: str
    description: str
    flags: Sequence[Flag]
    examples: Sequence[str]

    def common(self) -> list[Flag]:
        """The flags that most users need: arguments, required ones, and those in the table of common options."""
        names = COMMON[self.name]
        always = [flag for flag in self.flags if flag.positional or flag.required]
        by_field = {flag.field: flag for flag in self.flags if flag not in always}
        return [*always, *(by_field[name] for name in names)]


def page_of(command: Command) -> Page:
    """The page of a command. Importing its configuration class takes most of the time that showing the help takes."""
    config_class = command.config_class()
    description = inspect.cleandoc(config_class.__doc__ or "")
    return Page(command.name, description, flags_of(config_class), list(config_class.examples))
