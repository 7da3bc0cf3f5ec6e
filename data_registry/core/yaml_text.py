"""YAML text as people write it: plain scalars mean what they look like, and a key that appears twice is an error."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from data_registry.core.errors import ConfigError, first_line
from data_registry.core.visible import visible

MAX_DEPTH: Final = 64
MAX_VALUES: Final = 1_000_000
# What PyYAML raises for a value that does not go with its tag, a number that is too long, or a date that there is not.
_NO_VALUE: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


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
        ConfigError: the text is not YAML, a key appears twice, a value contains itself, or values are nested more than
            ``MAX_DEPTH`` deep or are more than ``MAX_VALUES`` with all aliases written out; with line and column.
    """
    try:
        loader = StrictLoader(text)
        try:
            node = loader.get_single_node()
            _check_extent(node, where)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"not valid YAML: {error.problem}{place}", where=where) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}", where=where) from error
    except RecursionError as error:
        raise ConfigError(f"values are nested more than {MAX_DEPTH} deep", where=where) from error
    except _NO_VALUE as error:
        raise ConfigError(f"not valid YAML: a value that cannot be read: {first_line(error)}", where=where) from error
    return value


def _check_extent(root: yaml.Node | None, where: str) -> None:
    """Refuse what is small as text and without bound with its aliases written out, or too deep to be walked through.

    Raises:
        ConfigError: the document has more values, or deeper ones, than any that people write.
    """
    extents: dict[int, tuple[int, int]] = {}
    around: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        """How many values a node has, and how deep they are nested, with all aliases written out."""
        if isinstance(node, yaml.ScalarNode):
            if any("\ud800" <= character <= "\udfff" for character in node.value):
                raise _refused("a text holds half of a surrogate pair, which is no character", node, where)
            return 1, 0
        if id(node) in around:
            raise _refused("a value contains itself", node, where)
        if id(node) not in extents:
            around.add(id(node))
            parts = (
                node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
            )
            measured = [measure(part) for part in parts]
            around.discard(id(node))
            size, depth = 1 + sum(size for size, _ in measured), 1 + max((depth for _, depth in measured), default=0)
            if depth > MAX_DEPTH:
                raise _refused(f"values are nested more than {MAX_DEPTH} deep", node, where)
            if size > MAX_VALUES:
                raise _refused(f"with its aliases written out it has more than {MAX_VALUES:,} values", node, where)
            extents[id(node)] = size, depth
        return extents[id(node)]

    if root is not None:
        measure(root)


def _refused(what: str, node: yaml.Node, where: str) -> ConfigError:
    mark = node.start_mark
    return ConfigError(f"{what} (line {mark.line + 1}, column {mark.column + 1})", where=where)


def dump(value: Any) -> str:
    """YAML text that :func:`parse_yaml` reads back as ``value``; keys in their order, and nothing in it unseen."""
    text = yaml.dump(value, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=120)
    if visible(text, block=True) == text:
        return text
    return yaml.dump(value, Dumper=StrictDumper, sort_keys=False, allow_unicode=False, width=120)
