"""What ``${NAME}`` and ``${steps.NAME.OPTION}`` stand for, and which steps need which others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import Any

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError
from data_registry.core.shown import shown
from pipelines.recipes.recipe import StepSpec

# ``$${`` is an escape for a literal ``${``.
_REFERENCE = re.compile(r"\$(\$?)\{([^{}]*)\}")


class References:
    """Looks up what the options of a recipe refer to.

    Args:
        out: the directory of the recipe; it may refer to variables.
        variables: the values of the variables; they may refer to each other and to ``out``.
        steps: the steps, whose options may refer to variables and to options of other steps. A step without the option
            ``out`` writes to ``${out}/NAME``.

    Attributes:
        used: the names of the variables that something referred to so far.
    """

    def __init__(self, out: Any, variables: Mapping[str, Any], steps: Mapping[str, StepSpec]) -> None:
        self._variables = {**variables, "out": out}
        self._steps = steps
        self._under_way: list[str] = []
        self.used: set[str] = set()

    def expand(self, value: Any, needs: set[str]) -> Any:
        """A value in which every reference is replaced by what it refers to.

        Args:
            value: a value from YAML: a text, a number, a list or a group.
            needs: a set to which the names of the steps that the value directly refers to are added.

        Raises:
            ConfigError: the value refers to something that does not exist, or to itself.
        """
        if isinstance(value, list):
            return [self.expand(item, needs) for item in value]
        if isinstance(value, dict):
            return {key: self.expand(item, needs) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        if "${" in _REFERENCE.sub("", value).replace("$${", ""):
            raise ConfigError(f"{shown(value)} has a '${{' without its '}}'; $${{ stands for a plain ${{")
        whole = _REFERENCE.fullmatch(value)
        if whole and not whole[1]:
            # A value that is nothing but a reference keeps its type: a number stays a number.
            return self._look_up(whole[2].strip(), needs)
        return _REFERENCE.sub(lambda found: self._as_text(found, needs), value)

    def _as_text(self, found: re.Match[str], needs: set[str]) -> str:
        if found[1]:
            return found[0][1:]
        value = self._look_up(found[2].strip(), needs)
        if value is None or isinstance(value, list | dict):
            raise ConfigError(f"{found[0]} is {_kind(value)} and cannot stand inside a text")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _look_up(self, name: str, needs: set[str]) -> Any:
        if name in self._under_way:
            chain = " -> ".join(f"${{{step}}}" for step in [*self._under_way[self._under_way.index(name) :], name])
            raise ConfigError(f"{chain} refers to itself")
        self._under_way.append(name)
        try:
            if name.startswith("steps."):
                return self._option_of_step(name, needs)
            known = name.replace("-", "_")
            if known not in self._variables:
                raise ConfigError(f"there is no variable '{name}'{suggest(known, list(self._variables))}")
            self.used.add(known)
            return self.expand(self._variables[known], needs)
        finally:
            self._under_way.pop()

    def _option_of_step(self, name: str, needs: set[str]) -> Any:
        _, step, *rest = name.split(".")
        if step not in self._steps:
            raise ConfigError(f"${{{name}}}: there is no step '{step}'{suggest(step, list(self._steps))}")
        if len(rest) != 1:
            raise ConfigError(f"${{{name}}}: write ${{steps.{step}.OPTION}}, such as ${{steps.{step}.out}}")
        option = rest[0].replace("-", "_")
        options = {key.replace("-", "_"): value for key, value in self._steps[step].options.items()}
        needs.add(step)
        if option == "out" and option not in options:
            return self.expand(default_out(step), set())
        if option not in options:
            given = list(dict.fromkeys(["out", *options]))
            raise ConfigError(f"${{{name}}}: step '{step}' does not give the option '{option}'{suggest(option, given)}")
        # The steps that the other step refers to are needed by that step, not by this one.
        return self.expand(options[option], set())


def default_out(step: str) -> str:
    """The output of a step that has no option ``out``."""
    return f"${{out}}/{step}"


def _kind(value: Any) -> str:
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a group"


def in_order(needs: Mapping[str, set[str]]) -> list[str]:
    """The steps in an order in which each comes after all that it needs; steps that are free keep their order.

    Args:
        needs: for each step, the names of the steps that it needs; every such name is also a key.

    Raises:
        ConfigError: some steps need each other; the error shows the circle.
    """
    sorter = TopologicalSorter({name: sorted(needed) for name, needed in needs.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        # The library goes from what is needed to what needs it.
        raise ConfigError(f"steps need each other in a circle: {' -> '.join(reversed(error.args[1]))}") from None
    place = {name: number for number, name in enumerate(needs)}
    ready: list[int] = []
    order: list[str] = []
    names = list(needs)
    while sorter.is_active():
        for name in sorter.get_ready():
            heappush(ready, place[name])
        order.append(names[heappop(ready)])
        sorter.done(order[-1])
    return order
