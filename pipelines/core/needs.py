"""Options that have an effect only beside others: declared with the field, and checked here for every command.

A need is a text: the name of a field that must be in use (``basis``) or must not be (``!rejudge``), a field with a
value (``space=gradient``, ``suite=capability``; of a list, one of its items), or a field without it (``loss!=sft``).
`` or `` stands between needs of which one is enough. Of several needs of one field, all must be met.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Final, get_origin

from pydantic import BaseModel

_CONDITION: Final = re.compile(r"(?P<no>!?)(?P<field>\w+)(?:(?P<sign>!?=)(?P<value>\S+))?")


def idle_options(config: BaseModel, given: Collection[str]) -> list[str]:
    """A message for each option that is asked for and has no effect, because what it needs is not there.

    Args:
        config: the options of a command.
        given: the names of fields that the user typed. An option that was typed counts as asked for even with its
            default value; one that was not, as in a file that a dry run wrote, only with another value.
    """
    problems = []
    for name, info in type(config).model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        needs: Any = extra.get("needs")
        if not needs or not _is_asked_for(config, name, given):
            continue
        missing = _unmet(config, needs)
        shown = _shown_value(config, name, extra)
        clashing = [need for need in missing if need.startswith("!")]
        problems += [f"{shown} does not go with {_spelled(type(config), need[1:])}: leave it out" for need in clashing]
        missing = [need for need in missing if need not in clashing]
        if missing:
            problems.append(f"{shown} needs {needs_in_words(type(config), missing)}: it has no effect otherwise")
    return problems


def unmet_by_default(config_class: type[BaseModel], needs: Sequence[str]) -> list[str]:
    """Those needs that the other options' defaults do not meet."""
    return _unmet(config_class.model_construct(), needs)


def _unmet(config: BaseModel, needs: Sequence[str]) -> list[str]:
    return [need for need in needs if not any(_holds(config, condition) for condition in need.split(" or "))]


def needs_in_words(config_class: type[BaseModel], needs: Sequence[str]) -> str:
    """Needs as the user writes options: ``--zero 2 or --zero 3``, ``--basis and --space gradient``."""
    return " and ".join(_in_words(config_class, need) for need in needs if not need.startswith("!"))


def _in_words(config_class: type[BaseModel], need: str) -> str:
    fields: dict[str, list[str]] = {}
    others: list[str] = []
    for condition in need.split(" or "):
        field, sign, value = _parts(condition)
        if sign == "=":
            fields.setdefault(field, []).append(value)
        else:
            others.append(
                _spelled(config_class, field) if not sign else f"a {_spelled(config_class, field)} other than {value}"
            )
    values = [f"{_spelled(config_class, field)} {value}" for field, found in fields.items() for value in found]
    words = [*values, *others]
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _is_asked_for(config: BaseModel, name: str, given: Collection[str]) -> bool:
    info = type(config).model_fields[name]
    if not _is_in_use(config, name):
        return False
    return name in given or getattr(config, name) != info.get_default(call_default_factory=True)


def _is_in_use(config: BaseModel, name: str) -> bool:
    """Whether an option asks for anything: it is not empty, not off, and not the value that the field calls off."""
    extra = type(config).model_fields[name].json_schema_extra
    off = extra.get("off") if isinstance(extra, dict) else None
    value = getattr(config, name)
    return not (value is None or value is False or value in ([], {}, "") or (off is not None and value == off))


def _holds(config: BaseModel, condition: str) -> bool:
    field, sign, wanted = _parts(condition)
    if not sign:
        return _is_in_use(config, field) is not condition.startswith("!")
    value = getattr(config, field)
    found = wanted in [str(item) for item in (value if isinstance(value, list) else [value])]
    return found if sign == "=" else not found


def _parts(condition: str) -> tuple[str, str, str]:
    match = _CONDITION.fullmatch(condition)
    assert match is not None, f"'{condition}' is not a need"
    return match["field"], match["sign"] or "", match["value"] or ""


def _shown_value(config: BaseModel, name: str, extra: Any) -> str:
    """The option as it was written, with its value where it is one of a few words."""
    value = getattr(config, name)
    words = extra.get("off") is not None and isinstance(value, str)
    return _spelled(type(config), name) + (f" {value}" if words else "")


def _spelled(config_class: type[BaseModel], name: str) -> str:
    info = config_class.model_fields[name]
    extra = info.json_schema_extra
    if isinstance(extra, dict) and extra.get("positional"):
        return name.upper()
    return f"--set {name}" if get_origin(info.annotation) is dict else f"--{name.replace('_', '-')}"
