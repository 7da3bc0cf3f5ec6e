"""The flags of a command, derived from the fields of its configuration class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from pipelines.core.config import CommandConfig

Kind = Literal["value", "list", "switch", "group"]


@dataclass(frozen=True)
class Flag:
    """One option as the command line sees it.

    Attributes:
        field: the name of the configuration field.
        names: the spellings of the option, such as ``("--num-samples", "-n")``; a positional argument has one name:
            ``("MODEL",)``, or ``("RESULTS...",)`` where it takes several values.
        kind: whether the option takes one value, can be repeated (``list``), is a switch ``--x/--no-x``, or is a group
            that only ``--set`` can reach.
        metavar: the placeholder for the value in the help; empty for switches.
        choices: the allowed values, keyed by the text that names them; empty when any value of the type is allowed.
        needs: the options without which it has no effect, in words; empty if the defaults are enough.
    """

    field: str
    names: tuple[str, ...]
    kind: Kind
    metavar: str
    help: str
    default: str
    panel: str
    required: bool = False
    positional: bool = False
    choices: Mapping[str, Any] | None = None
    needs: str = ""

    def value_of(self, text: Any) -> Any:
        """The value that a text from the command line stands for: the choice of that name, or the text itself."""
        return self.choices.get(text, text) if self.choices and isinstance(text, str) else text


def flags_of(config_class: type[CommandConfig]) -> list[Flag]:
    """Every option of a command, positional ones first."""
    flags = [_flag(config_class, name, info) for name, info in config_class.model_fields.items()]
    return sorted(flags, key=lambda flag: not flag.positional)


def _flag(config_class: type[CommandConfig], name: str, info: Any) -> Flag:
    from pipelines.core.config import annotation_types, option_metadata
    from pipelines.core.needs import needs_in_words, unmet_by_default

    extra = option_metadata(info)
    needs = extra.get("needs") or []
    types = set(annotation_types(info.annotation))
    choices = _choices(info.annotation)
    positional = bool(extra.get("positional"))
    kind: Kind = "group" if dict in types else "list" if list in types else "switch" if bool in types else "value"
    spelled = f"--{name.replace('_', '-')}"
    if positional:
        names: tuple[str, ...] = (name.upper() + ("..." if kind == "list" else ""),)
    elif kind == "group":
        names = (f"--set {name}.KEY=VALUE",)
    else:
        names = (spelled, f"-{str(extra['short']).lstrip('-')}") if extra.get("short") else (spelled,)
    return Flag(
        field=name,
        names=names,
        kind=kind,
        metavar="" if kind in ("switch", "group") or positional else _metavar(types, choices),
        help=info.description or "",
        default=_default_text(info),
        panel="Arguments" if positional else str(extra.get("panel", "Options")),
        required=info.is_required(),
        positional=positional,
        choices=choices,
        needs=needs_in_words(config_class, unmet_by_default(config_class, needs)) if needs else "",
    )


def _choices(annotation: Any) -> dict[str, Any]:
    if get_origin(annotation) is Literal:
        return {str(value): value for value in get_args(annotation)}
    return {text: value for inner in get_args(annotation) for text, value in _choices(inner).items()}


def _metavar(types: set[Any], choices: Mapping[str, Any]) -> str:
    if choices:
        # A number, or one of a few words.
        return "|".join([*(["N"] if int in types else []), *choices])
    for kind, metavar in ((Path, "PATH"), (int, "N"), (float, "X")):
        if kind in types:
            return metavar
    return "TEXT"


def _default_text(info: Any) -> str:
    if info.is_required():
        return ""
    default = info.get_default(call_default_factory=True)
    if default is None or default is False or default == [] or default == {}:
        return ""
    if default is True:
        return "on"
    if isinstance(default, list):
        return ", ".join(map(str, default))
    return str(default)
