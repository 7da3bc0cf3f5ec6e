"""The words of a command line in our own spelling: other programs' names, underscores, and values of switches.

Words are rewritten before Typer sees them, so that help, completion and errors know one spelling. An option that takes
one value and is given twice is refused here: Typer would silently take the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_registry.core.errors import ConfigError
from ogpsa_cli.flags import Flag
from pipelines.core import other_names

if TYPE_CHECKING:
    from pipelines.core.config import CommandConfig

_HELP = ("--help", "-h", "--help-all")
_SWITCH_VALUES = ("true", "false")


@dataclass
class _Given:
    """An option on the command line: how it was written, whether it turns off a switch, and the value after it."""

    flag: Flag
    written: str
    off: bool = False


def in_our_spelling(words: Sequence[str], flags: Sequence[Flag], config_class: type[CommandConfig]) -> list[str]:
    """The words after the command's name, with every option under its own name.

    Args:
        words: the words as they were typed.
        flags: all options of the command, with those that all commands share.
        config_class: the command's configuration class.

    Raises:
        ConfigError: an option that takes one value is given twice, another program's value means nothing here, or its
            option has no counterpart; all problems at once.
    """
    if any(word in _HELP for word in words):
        return list(words)
    return _Reader(words, flags, config_class).read()


class _Reader:
    """Goes through the words once."""

    def __init__(self, words: Sequence[str], flags: Sequence[Flag], config_class: type[CommandConfig]) -> None:
        self._words = list(words)
        self._class = config_class
        self._by_field = {flag.field: flag for flag in flags if flag.kind != "group"}
        self._by_name = {name: flag for flag in flags if not flag.positional for name in flag.names}
        self._seen: dict[str, list[_Given]] = {}
        self._problems: list[str] = []

    def read(self) -> list[str]:
        """All words in our spelling."""
        result: list[str] = []
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                result += [word, *self._words]
                break
            if word.startswith("--"):
                result += self._option(word)
            elif word.startswith("-") and word[:2] in self._by_name:
                result += self._short(word)
            else:
                result.append(word)
        self._problems += self._twice()
        if self._problems:
            raise ConfigError(self._problems)
        return result

    def _option(self, word: str) -> list[str]:
        name, equals, value = word.partition("=")
        flag = self._by_name.get(name.replace("_", "-"))
        if flag is not None:
            return self._ours(flag, word, name, value if equals else None)
        spelled = name.removeprefix("--")
        off = spelled.replace("_", "-").startswith("no-")
        if off and self._switch(spelled[3:]) is not None:
            flag = self._switch(spelled[3:])
            assert flag is not None
            return self._ours(flag, word, name, value if equals else None, off=True)
        meaning = self._meaning(spelled)
        flag = None if meaning is None else self._by_field.get(meaning.field)
        if flag is None or meaning is None:
            instead = other_names.hint(self._class.model_fields, spelled, foreign=self._class.takes_other_names)
            if instead is not None:
                self._problems.append(f"there is no option '{name}': {instead}")
                self._skip_value()
                return []
            return [word]
        if flag.kind == "switch" or not (meaning.is_switch or meaning.read):
            return self._ours(flag, word, name, value if equals else None)
        return self._translated(flag, name, value if equals else None, meaning)

    def _meaning(self, name: str) -> other_names.Meaning | None:
        return other_names.find(self._class.model_fields, name, foreign=self._class.takes_other_names)

    def _switch(self, name: str) -> Flag | None:
        meaning = self._meaning(name)
        flag = None if meaning is None else self._by_field.get(meaning.field)
        return flag if flag is not None and flag.kind == "switch" else None

    def _ours(self, flag: Flag, word: str, name: str, value: str | None, *, off: bool = False) -> list[str]:
        """An option whose value, if it takes one, means here what it means elsewhere."""
        if flag.kind == "switch":
            if value is None and self._words and self._words[0].lower() in _SWITCH_VALUES:
                value = self._words.pop(0)
            if value is not None and value.lower() not in _SWITCH_VALUES:
                return [word]
            off = off is not (value is not None and value.lower() == "false")
            self._note(flag, name, off=off)
            if not off:
                return [flag.names[0]]
            # The switches that all commands share have no form that turns them off.
            return [f"--no-{flag.names[0].removeprefix('--')}"] if flag.field in self._class.model_fields else []
        self._note(flag, name)
        values = [self._words.pop(0)] if value is None and self._words else [] if value is None else [value]
        if flag.positional:
            return values
        return [f"{flag.names[0]}={values[0]}"] if value is not None else [flag.names[0], *values]

    def _translated(self, flag: Flag, name: str, value: str | None, meaning: other_names.Meaning) -> list[str]:
        """An option of another program whose value has to be read."""
        self._note(flag, name)
        if value is None and meaning.is_switch:
            is_value = bool(self._words) and self._words[0].lower() in _SWITCH_VALUES
            value = self._words.pop(0) if is_value else "true"
        elif value is None:
            value = self._words.pop(0) if self._words else None
        if value is None:
            return [flag.names[0]]
        assert meaning.read is not None
        try:
            read = meaning.read(value)
        except ValueError as error:
            self._problems.append(f"option '{name}': {error}")
            return []
        return [word for item in (read if isinstance(read, list) else [read]) for word in (flag.names[0], str(item))]

    def _short(self, word: str) -> list[str]:
        flag = self._by_name[word[:2]]
        self._note(flag, word[:2])
        takes_next = flag.kind != "switch" and len(word) == 2 and bool(self._words)
        return [word, self._words.pop(0)] if takes_next else [word]

    def _skip_value(self) -> None:
        if self._words and not self._words[0].startswith("-"):
            self._words.pop(0)

    def _note(self, flag: Flag, written: str, *, off: bool = False) -> None:
        self._seen.setdefault(flag.field, []).append(_Given(flag, written, off))

    def _twice(self) -> Iterator[str]:
        for given in self._seen.values():
            flag = given[0].flag
            names = list(dict.fromkeys(each.written for each in given))
            shown = f"option {names[0]}" + (f" (also as {', '.join(names[1:])})" if names[1:] else "")
            if flag.kind == "value" and given[1:]:
                yield f"{shown} is given {'twice' if len(given) == 2 else f'{len(given)} times'}; it takes one value"
            if flag.kind == "switch" and len({each.off for each in given}) > 1:
                yield f"option {flag.names[0]} is turned on and off; leave one of them out"
