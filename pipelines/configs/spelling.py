"""Writing a configuration as a command line, for manifests and for commands that people can repeat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_registry.core.errors import ConfigError
from data_registry.core.yaml_text import parse_yaml
from pipelines.core.config import CommandConfig, option_metadata


def command_arguments(command: str, config: CommandConfig) -> list[str]:
    """The words to type after ``ogpsa`` for a configuration: the command, its argument, and options not at defaults.

    The output comes last, where people look for it.

    Args:
        command: the command's name, such as ``"train-sft"``.
        config: the command's options.
    """
    arguments = [command]
    options: list[str] = []
    out: list[str] = []
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if option_metadata(info).get("positional"):
            arguments += [] if value is None else map(str, value) if isinstance(value, list) else [str(value)]
        elif value != info.get_default(call_default_factory=True):
            (out if name == "out" else options).extend(_spell(name, value))
    return [*arguments, *options, *out]


def _spell(name: str, value: Any) -> Iterator[str]:
    flag = "--" + name.replace("_", "-")
    if value is None:
        yield from ("--set", f"{name}=null")
    elif isinstance(value, bool):
        yield flag if value else "--no-" + flag.removeprefix("--")
    elif value == []:
        yield from ("--set", f"{name}=[]")
    elif isinstance(value, list):
        for item in value:
            yield from (flag, str(item))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from ("--set", f"{name}.{key}={_as_yaml(item)}")
    else:
        yield from (flag, str(value))


def _as_yaml(value: Any) -> str:
    """A value as ``--set`` reads it back: plain text where that is enough, otherwise JSON, which is valid YAML."""
    text = str(value)
    try:
        again = parse_yaml(text, where="--set")
    except ConfigError:
        again = None
    same = type(again) is type(value) and again == value
    return text if same else json.dumps(value, ensure_ascii=False)
