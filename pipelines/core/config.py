"""One typed definition per command: it serves flags, YAML files, ``--set``, ``--help`` and the JSON schema.

Values are taken in the order: default < ``--config FILE`` < flags < ``--set a.b=v``. All problems are reported
together. ``--help`` imports this module, so YAML and hashing are imported where they are needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.config import JsonDict

from data_registry.core.documents import check_mapping, explain_value, field_names, read_text, suggest
from data_registry.core.errors import ConfigError
from data_registry.core.redaction import HIDDEN, hidden_names, hide_values
from data_registry.core.shown import clipped, shown
from data_registry.core.visible import is_text, visible
from pipelines.core import other_names
from pipelines.core.needs import idle_options

_DEEPEST = 20

ConfigT = TypeVar("ConfigT", bound="CommandConfig")


class _ContradictionError(ValueError):
    """Several contradictions between options, which are shown one by one."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class CommandConfig(BaseModel):
    """The options of one command. Unknown keys are errors; every field carries its help text.

    The docstring's first paragraph is the command's description under ``--help``, ``examples`` follow it.
    """

    # defer_build: help shows a class without ever validating with it, and building validators is what takes time.
    model_config = ConfigDict(
        extra="forbid", validate_default=True, protected_namespaces=(), defer_build=True, allow_inf_nan=False
    )

    examples: ClassVar[Sequence[str]] = ()
    takes_other_names: ClassVar[bool] = True
    """Whether the names that other programs give to options are known (:mod:`pipelines.core.other_names`)."""

    def identity(self) -> dict[str, Any]:
        """The options that determine the result, JSON-ready: all but those marked ``runtime``, and no tokens."""
        values: dict[str, Any] = hide_values(self.identity_of(self.model_dump(mode="json")), surely=True)
        return values

    @classmethod
    def identity_of(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options that determine the result, out of all options of this class in JSON form."""
        runtime = {name for name, info in cls.model_fields.items() if _extra(info).get("runtime")}
        return {name: value for name, value in values.items() if name not in runtime}

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """The names of the options that determine the result and had other values when a configuration was recorded.

        Options that the recorded configuration does not have, because they were not there yet, had their defaults.

        Args:
            recorded: all options, as a manifest records them: without tokens and passwords, which are not compared.
        """
        fields = type(self).model_fields
        defaults = {name: _default_json(info) for name, info in fields.items() if not info.is_required()}
        then, now = (hide_values(values) for values in (self.identity_of({**defaults, **recorded}), self.identity()))
        differing = [name for name in {**now, **then} if name not in now or name not in then or now[name] != then[name]]
        stricter = [
            name for name, info in fields.items()
            if _extra(info).get("permits") and getattr(self, name) < recorded.get(name, defaults.get(name))
        ]  # fmt: skip
        return [*differing, *stricter]

    def identity_hash(self) -> str:
        """Hex digest of :meth:`identity`; equal configurations have equal digests."""
        import hashlib

        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def problems(self) -> Sequence[str]:
        """What options contradict each other, as messages; classes add what concerns them."""
        return []

    @model_validator(mode="after")
    def _check_options(self, info: ValidationInfo) -> Any:
        given = (info.context or {}).get("given", ())
        problems = [*idle_options(self, given), *self.problems()]
        if problems:
            raise _ContradictionError(list(dict.fromkeys(problems)))
        return self

    def recorded(self) -> dict[str, Any]:
        """All options, JSON-ready, for whoever reads the artifact: tokens and passwords are hidden."""
        values: dict[str, Any] = hide_values(self.model_dump(mode="json"))
        return values

    def hides_settings(self) -> bool:
        """Whether :meth:`recorded` hides values that the result may depend on: they only look like tokens."""
        return bool(self.recorded() != hide_values(self.model_dump(mode="json"), surely=True))

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that ``--config`` reads back; tokens and passwords are hidden."""
        from data_registry.core.yaml_text import dump

        return dump(self.recorded())


def option(
    default: Any,
    help: str,  # noqa: A002 - the word that typer and argparse use
    *,
    panel: str = "Options",
    positional: bool = False,
    runtime: bool = False,
    short: str | None = None,
    permits: bool = False,
    needs: str | Sequence[str] = (),
    off: Any = None,
    **constraints: Any,
) -> Any:
    """A configuration field with its default (``...`` = required), help text and constraints such as ``ge=0``.

    Args:
        default: the default value, or ``...``.
        help: one or two sentences that tell a newcomer what to know.
        panel: the heading under which ``--help`` lists it.
        positional: whether it is given without a flag.
        runtime: whether it says how the command runs rather than what it makes; it is then not part of the result's
            identity.
        short: a one-letter flag such as ``-n``.
        permits: whether it only permits more with a greater value (True is greater than False). A result that was made
            is then also what a greater value would have made.
        needs: without what else it would have no effect, so that it is refused (:mod:`pipelines.core.needs`).
        off: the value with which it asks for nothing, and therefore needs nothing, beside None, False and empty ones.
        constraints: further arguments of ``pydantic.Field``.
    """
    extra: JsonDict = {"panel": panel, "positional": positional, "runtime": runtime or permits, "short": short}
    if permits:
        extra |= {"permits": True}
    if needs:
        extra |= {"needs": [needs] if isinstance(needs, str) else list(needs), "off": off}
    elif off is not None:
        extra |= {"off": off}
    if isinstance(default, list | dict | set):
        return Field(
            default_factory=lambda: type(default)(default),
            description=help,
            json_schema_extra=extra,
            **constraints,
        )
    return Field(default, description=help, json_schema_extra=extra, **constraints)


def option_metadata(info: Any) -> dict[str, Any]:
    """The values that :func:`option` stored with a pydantic field: panel, positional, runtime, short, needs, off."""
    return _extra(info)


def _default_json(info: Any) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(info.get_default(call_default_factory=True))


def _extra(info: Any) -> dict[str, Any]:
    extra = info.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def read_config_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML configuration file; ``learning-rate`` and ``learning_rate`` are the same key.

    Raises:
        InputError: the file cannot be read, or is not text.
        ConfigError: the file is not YAML, not a mapping, or names an option twice.
    """
    from data_registry.core.yaml_text import parse_yaml

    where = str(path)
    values = parse_yaml(read_text(path, "configuration file"), where=where)
    if values is None:
        return {}
    check_mapping(values, what="configuration file", where=where)
    try:
        return field_names(values)
    except ValueError as error:
        raise ConfigError(f"option {error}", where=where) from error


def resolve(
    config_class: type[ConfigT],
    *,
    file: Path | None = None,
    values: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> ConfigT:
    """Merge the sources of a command's options and validate the result.

    Args:
        config_class: the class that defines the command's options.
        file: a YAML file, which overrides only the defaults.
        values: what such a file would have in it, where it was read already.
        flags: the options that were given on the command line, by field name.
        sets: ``a.b=value`` strings, which override everything else; the value is read as YAML.

    Raises:
        InputError: the file cannot be read.
        ConfigError: the options are not valid; the message lists every problem.
    """
    values, problems = _translated(config_class, read_config_file(file) if file else values or {})
    typed, twice = _translated(config_class, flags or {})
    assigned, wrong = _read_assignments(config_class, sets, {**values, **typed})
    problems += [*twice, *wrong]
    problems += _unrecordable({**values, **typed, **assigned})
    given = {*typed, *assigned}
    values, refused = _prepare(config_class, {**values, **typed, **assigned})
    problems.extend(refused)
    config = None
    try:
        config = config_class.model_validate(values, context={"given": given})
    except ValidationError as error:
        problems.extend(_explain(error, config_class))
    if problems or config is None:
        raise ConfigError(problems, where=str(file) if file else None)
    return config


def _translated(config_class: type[CommandConfig], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    return other_names.translate(config_class.model_fields, values, foreign=config_class.takes_other_names)


def _read_assignments(
    config_class: type[CommandConfig], sets: Sequence[str], values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The options that ``--set`` assigns, groups with what ``values`` has in them already; and the problems."""
    result: dict[str, Any] = {}
    problems: list[str] = []
    seen: set[str] = set()
    for assignment in sets:
        try:
            path, value = _parse_assignment(config_class, assignment)
            key = ".".join(path)
            if key in seen:
                raise ConfigError(f"--set {assignment}: '{key}' is set twice")
            seen.add(key)
            _assign(result, values, path, value, assignment)
        except ConfigError as error:
            problems.extend(error.problems)
    return result, problems


def _parse_assignment(config_class: type[CommandConfig], assignment: str) -> tuple[list[str], Any]:
    """The path of keys that an assignment names, and its value."""
    from data_registry.core.yaml_text import parse_yaml

    key, separator, text = assignment.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set takes KEY=VALUE, not '{assignment}'")
    # Only our own option names are the same with - and _; a key below them may be the name of a column.
    first, *rest = key.split(".")
    try:
        value = parse_yaml(text, where="--set")
    except ConfigError as error:
        raise ConfigError(f"--set {clipped(assignment, 200)}: {error.what}") from error
    first = first.replace("-", "_")
    if len(rest) >= _DEEPEST:
        raise ConfigError(f"--set {clipped(assignment, 200)}: the key has {len(rest) + 1} parts; no option has so many")
    if rest:
        return [first, *rest], value
    translated, problems = _translated(config_class, {first: value})
    if problems:
        raise ConfigError(problems)
    ((name, value),) = translated.items()
    return [name], value


def _assign(
    result: dict[str, Any], values: Mapping[str, Any], path: Sequence[str], value: Any, assignment: str
) -> None:
    if path[1:] and path[0] not in result:
        result[path[0]] = values.get(path[0], {})
    target = result
    for parent in path[:-1]:
        below = target.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {clipped(assignment, 200)}: '{parent}' is not a group of options")
        target[parent] = target = dict(below)
    target[path[-1]] = value


def _unrecordable(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with values that were hidden when they were recorded, or that no artifact could record."""
    problems = [
        f"the value of {name} was hidden ({HIDDEN}) when these options were recorded; give it again, or leave it out"
        for name in hidden_names(values)
    ]
    return problems + [
        f"a value below {visible(str(name))} is not UTF-8, so that no artifact could record it"
        for name, value in values.items()
        if isinstance(value, Mapping) and not is_text({name: value})
    ]


def annotation_types(annotation: Any) -> Iterator[Any]:
    """The plain types inside an annotation: ``list[Path] | None`` gives list, Path and NoneType."""
    origin = get_origin(annotation)
    if origin is None:
        yield annotation
        return
    yield origin
    for argument in get_args(annotation):
        yield from annotation_types(argument)


def _prepare(config_class: type[CommandConfig], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values with conveniences applied (``reference: data`` for ``[data]``, ``~`` in paths), and the problems."""
    result, problems = dict(values), []
    for name, info in config_class.model_fields.items():
        if name not in result:
            continue
        types, value = set(annotation_types(info.annotation)), result[name]
        if list in types and isinstance(value, str):
            value = [value]
        for item in value if isinstance(value, list) else [value]:
            if item == "" and (Path in types or _extra(info).get("positional")):
                problems.append(f"{_shown(name, info)} is empty (a shell variable that was never set?)")
            if isinstance(item, str | Path) and not is_text(str(item)):
                # Everything that a command was given is recorded, as UTF-8.
                problems.append(f"{_shown(name, info)}: {shown(str(item))} is not UTF-8; rename it")
            if isinstance(item, bool) and bool not in types and Any not in types:
                # pydantic would take true for 1.
                problems.append(f"{_shown(name, info)}: does not take {str(item).lower()}")
        if Path in types:
            value = [_expand_home(item) for item in value] if isinstance(value, list) else _expand_home(value)
        result[name] = value
    return result, problems


def _expand_home(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) and value.startswith("~") else value


def _explain(error: ValidationError, config_class: type[CommandConfig]) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False):
        first, *rest = [str(part) for part in problem["loc"]] or [""]
        info = config_class.model_fields.get(first)
        if problem["type"] == "extra_forbidden":
            instead = other_names.hint(config_class.model_fields, first, foreign=config_class.takes_other_names)
            meant = f": {instead}" if instead else suggest(first, list(config_class.model_fields))
            lines.append(f"unknown option '{first}'{meant}")
        elif not first:
            cause = problem.get("ctx", {}).get("error")
            lines += cause.problems if isinstance(cause, _ContradictionError) else [explain_value(problem)]
        elif info is None:
            lines.append(f"option '{first}': {explain_value(problem)}")
        elif problem["type"] == "missing":
            lines.append(f"{_shown(first, info)} is required: {info.description}")
        else:
            lines.append(f"{_shown(first, info, rest)}: {explain_value(problem)}")
    return list(dict.fromkeys(lines))


def _shown(name: str, info: Any, below: Sequence[str] = ()) -> str:
    """The name of an option as the user writes it."""
    if dict in set(annotation_types(info.annotation)):
        return f"option --set {'.'.join([name, *below])}"
    return name.upper() if _extra(info).get("positional") else f"option --{name.replace('_', '-')}"
