"""YAML text as people write it: plain scalars mean what they look like, and a key that appears twice is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

from data_registry.core.errors import ConfigError
from data_registry.core.visible import visible


class StrictLoader(yaml.SafeLoader):
    """YAML 1.2's plain scalars (PyYAML follows 1.1: ``1e-6`` a string, ``no`` a boolean, ``1:30`` a number)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys all differ."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' appears twice", key.start_mark)
            seen.add((key.tag, key.value if isinstance(key, yaml.ScalarNode) else id(key)))
        return super().construct_mapping(node, deep=deep)


class StrictDumper(yaml.SafeDumper):
    """Quotes what either version of YAML would not read back as the same string."""


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)|[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("merge", r"^<<$", ["<"]),
):
    for _class in (StrictLoader, StrictDumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def parse_yaml(text: str, *, where: str) -> Any:
    """The value of a YAML text.

    Args:
        text: one document.
        where: the file or option that it stands in, for errors.

    Raises:
        ConfigError: the text is not YAML, or a key appears twice; with line and column.
    """
    try:
        return yaml.load(text, Loader=StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"not valid YAML: {error.problem}{place}", where=where) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}", where=where) from error


def dump(value: Any) -> str:
    """YAML text that :func:`parse_yaml` reads back as ``value``; keys in their order, and nothing in it unseen."""
    text = yaml.dump(value, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=120)
    if visible(text, block=True) == text:
        return text
    return yaml.dump(value, Dumper=StrictDumper, sort_keys=False, allow_unicode=False, width=120)
