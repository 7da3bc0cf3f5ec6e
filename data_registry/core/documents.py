"""YAML documents as people write them, and their problems in the reader's words: strict keys, all errors at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from data_registry.core.errors import ConfigError, InputError


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse YAML text.

    Raises:
        ConfigError: the text is not YAML, or a key appears twice.
    """
    import yaml

    from data_registry.core import documents

    try:
        return documents.load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"not valid YAML: {error.problem}{place}", where=where) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}", where=where) from error


def suggest(word: str, known: Sequence[str]) -> str:
    """`` (did you mean 'x'?)`` or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_NEEDS = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a group of 'key: value' lines",
    "path_type": "a path",
}


def explain_value(problem: Mapping[str, Any]) -> str:
    """What is wrong with one value, an entry of pydantic's ``errors()``, in the reader's words."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "value_error":
        return str(context["error"]) if "error" in context else str(problem["msg"])
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {context[key]}, got {value!r}"
    if kind == "literal_error":
        choices = str(context["expected"])
        known = [choice.strip("'") for choice in choices.replace(" or ", ", ").split(", ")]
        return f"must be {choices}, got {value!r}{suggest(str(value), known)}"
    if kind == "string_type":
        return f"needs text, got {value!r} (put it in quotes if it is meant as text)"
    if kind == "too_short":
        return f"needs at least {context['min_length']}"
    if kind in _NEEDS:
        return f"needs {_NEEDS[kind]}, got {value!r}"
    return f"{problem['msg'].lower()}, got {value!r}"


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


def load(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: the text is not YAML, or a key appears twice.
    """
    return yaml.load(text, Loader=StrictLoader)


def dump(value: Any) -> str:
    """YAML text that :func:`load` reads back as ``value``; keys in their order."""
    return yaml.dump(value, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=120)


DocumentT = TypeVar("DocumentT", bound="Document")


class Document(BaseModel):
    """A part of a document: unknown keys are errors; ``gpus-per-node`` and ``gpus_per_node`` are the same key."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _same_key(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        result: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            if name in result:
                raise ValueError(f"'{name}' appears twice, once as '{key}'")
            result[name] = value
        return result


def read_text(path: Path, what: str) -> str:
    """The text of a file.

    Args:
        path: the file.
        what: what it should be, such as ``"recipe"``, for the error.

    Raises:
        InputError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"there is no {what} '{path}'") from error
    except IsADirectoryError as error:
        raise InputError(f"'{path}' is a directory, where a {what} is needed") from error
    except OSError as error:
        raise InputError(f"the {what} '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the {what} '{path}' is not text: {error.reason}") from error


def parse(document: type[DocumentT], text: str, *, what: str, where: str) -> DocumentT:
    """Read a document.

    Args:
        document: its schema.
        text: YAML.
        what: what it is, such as ``"recipe"``, for errors.
        where: the file, for errors.

    Raises:
        ConfigError: with every problem found.
    """
    values = parse_yaml(text, where=where)
    if not isinstance(values, dict):
        found = "empty" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"a {what} holds 'key: value' lines; this one is {found}", where=where)
    try:
        return document.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem, document) for problem in error.errors(include_url=False)]
        raise ConfigError(list(dict.fromkeys(problems)), where=where) from error


def _explain(problem: Mapping[str, Any], document: type[Document]) -> str:
    path = [str(part) for part in problem["loc"]]
    shown = ".".join(path).replace("_", "-")
    if problem["type"] == "extra_forbidden":
        known = [name.replace("_", "-") for name in _model_at(document, path[:-1]).model_fields]
        return f"unknown key '{shown}'{suggest(path[-1].replace('_', '-'), known)}"
    if problem["type"] == "missing":
        return f"'{shown}' is missing"
    if problem["type"] == "model_type":
        return f"'{shown}' needs 'key: value' lines, got {problem['input']!r}"
    return f"'{shown}': {explain_value(problem)}" if shown else explain_value(problem)


def _model_at(document: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The part of a document at a path of keys."""
    here: Any = document
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[part].annotation
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        if get_origin(here) in (Union, UnionType):
            here = next(kind for kind in get_args(here) if kind is not type(None))
    assert issubclass(here, BaseModel)
    return here


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`` (did you mean 'a' or 'b'?)``, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    quoted = [f"'{word}'" for word in close]
    return f" (did you mean {' or '.join(quoted)}?)" if quoted else ""
