"""YAML documents that people write: read, checked against a model, and all their problems told in the reader's words.

The way of every such file: :func:`read_text`, then :func:`parse`, which is ``parse_yaml`` and :func:`check`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from data_registry.core.errors import ConfigError, InputError
from data_registry.core.regular_files import open_regular
from data_registry.core.shown import shown as shown_value

MAX_BYTES = 64 << 20

DocumentT = TypeVar("DocumentT", bound="Document")


class Document(BaseModel):
    """A part of a document: unknown keys are errors; ``gpus-per-node`` and ``gpus_per_node`` are the same key."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _same_key(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        fields = field_names(values)
        for name, value in fields.items():
            kinds = _kinds(cls.model_fields[name].annotation) if name in cls.model_fields else ()
            if isinstance(value, bool) and {int, float}.intersection(kinds) and not {bool, Any}.intersection(kinds):
                # pydantic would take true for 1.
                raise ValueError(f"'{name}' needs a number, got {str(value).lower()}")
        return fields


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types of a value, those of an optional or mixed one each by itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def field_names(values: Mapping[Any, Any]) -> dict[str, Any]:
    """The values under the names of fields, which have ``_`` where a key may have ``-``.

    Raises:
        ValueError: two keys are the same field.
    """
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
        InputError: it cannot be read, is no regular file (a pipe, a device), or is not text.
    """
    try:
        with open_regular(path, f"a {what}") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"'{path}' is longer than {MAX_BYTES >> 20} MB, and so no {what}")
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"the {what} '{path}' does not exist") from error
    except OSError as error:
        raise InputError(f"the {what} '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the {what} '{path}' is not text in UTF-8: {error.reason}") from error


def parse(
    document: type[DocumentT], text: str, *, what: str, where: str, defaults: Mapping[str, Any] | None = None
) -> DocumentT:
    """A document from its YAML text.

    Args:
        document: the model that it must fit.
        text: the YAML text of the document.
        what: the kind of document, such as ``"recipe"``, named in errors.
        where: the file, for errors.
        defaults: values of fields that the text does not give.

    Raises:
        ConfigError: something is wrong with the document; the error names every problem.
    """
    from data_registry.core.yaml_text import parse_yaml

    return check(document, parse_yaml(text, where=where), what=what, where=where, defaults=defaults)


def check(
    document: type[DocumentT], values: Any, *, what: str, where: str, defaults: Mapping[str, Any] | None = None
) -> DocumentT:
    """A document from values that were parsed already; the arguments are those of :func:`parse`.

    Raises:
        ConfigError: something is wrong with the document; the error names every problem.
    """
    check_mapping(values, what=what, where=where)
    try:
        return document.model_validate({**(defaults or {}), **values})
    except ValidationError as error:
        raise ConfigError(explain(error, document, values), where=where) from error


def check_mapping(values: Any, *, what: str, where: str) -> None:
    """Refuse values that are not ``key: value`` lines.

    Raises:
        ConfigError: they are something else; the error says what.
    """
    if not isinstance(values, dict):
        found = "empty" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"a {what} holds 'key: value' lines; this one is {found}", where=where)


def explain(error: ValidationError, document: type[BaseModel], values: Any = None) -> list[str]:
    """Every problem of a document in the reader's words, each once.

    Args:
        error: what pydantic found.
        document: the model that was asked for.
        values: what the reader wrote, whose spelling of the keys is kept.
    """
    problems = error.errors(include_url=False)
    return list(dict.fromkeys(_explain(problem, document, values) for problem in problems))


def _explain(problem: Mapping[str, Any], document: type[BaseModel], values: Any) -> str:
    shown, part = _place(document, [str(key) for key in problem["loc"] if key != "[key]"], values)
    if problem["type"] == "extra_forbidden" and part is not None:
        key = shown.rpartition(".")[2]
        known = [name if "_" in key else name.replace("_", "-") for name in part.model_fields]
        return f"unknown key '{shown}'{suggest(key, known)}"
    if problem["type"] == "missing":
        return f"'{shown}' is missing"
    if problem["type"] == "model_type":
        return f"'{shown}' needs 'key: value' lines, got {shown_value(problem['input'])}"
    return f"'{shown}': {explain_value(problem)}" if shown else explain_value(problem)


def _place(document: type[BaseModel], path: Sequence[str], values: Any) -> tuple[str, type[BaseModel] | None]:
    """A path of fields as the reader wrote it, and the part of the document in which its last key stands."""
    here: Any = document
    written: list[str] = []
    part: type[BaseModel] | None = None
    for name in path:
        part = here if isinstance(here, type) and issubclass(here, BaseModel) else None
        key: Any = name
        if part is not None:
            mapping = values if isinstance(values, Mapping) else {}
            key = next((key for key in mapping if str(key).replace("-", "_") == name), name.replace("_", "-"))
            here = _type_within(part.model_fields[name].annotation) if name in part.model_fields else None
        else:
            here = _type_within(get_args(here)[-1]) if get_args(here) else None
        values = _below(values, key)
        written.append(str(key))
    return ".".join(written), part


def _type_within(annotation: Any) -> Any:
    """The type of an optional value."""
    if get_origin(annotation) in (Union, UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation


def _below(values: Any, key: Any) -> Any:
    """What stands under a key of a mapping, or at a place of a list; None where there is nothing of the kind."""
    if isinstance(values, Mapping):
        return values.get(key)
    is_place = isinstance(values, list) and str(key).isdecimal() and int(key) < len(values)
    return values[int(key)] if is_place else None


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
        return f"must be {words} {context[key]}, got {shown_value(value)}"
    if kind == "literal_error":
        choices = str(context["expected"])
        known = [choice.strip("'") for choice in choices.replace(" or ", ", ").split(", ")]
        return f"must be {choices}, got {shown_value(value)}{suggest(str(value), known)}"
    if kind == "string_type":
        return f"needs text, got {shown_value(value)} (put it in quotes if it is meant as text)"
    if kind == "too_short":
        return f"needs at least {context['min_length']}"
    if kind in _NEEDS:
        return f"needs {_NEEDS[kind]}, got {shown_value(value)}"
    message = str(problem["msg"])
    return f"{message[:1].lower()}{message[1:]}, got {shown_value(value)}"


def suggest(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """The nearest known words as `` (did you mean 'a' or 'b'?)``, at most so many; empty where none is near."""
    close = difflib.get_close_matches(word[:200], list(known), n=most, cutoff=0.6)
    quoted = [f"'{name}'" for name in close]
    return f" (did you mean {' or '.join(quoted)}?)" if quoted else ""
