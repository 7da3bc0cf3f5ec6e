"""What a shell completes: the values that an option can have, and the names that ogpsa knows. Imports nothing heavy."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

# Shells show one line for each value.
_LONGEST_HELP: Final = 60

Names = Callable[[], Iterable[tuple[str, str]]]


def _data_sets() -> Iterable[tuple[str, str]]:
    from data_registry.registry.listing import list_entries

    return [(entry.name, entry.description) for entry in list_entries() if entry.task != "prompts"]


def _prompt_sets() -> Iterable[tuple[str, str]]:
    from data_registry.registry.listing import list_entries

    return [(entry.name, entry.description) for entry in list_entries() if entry.prompts is not None]


def _suites() -> Iterable[tuple[str, str]]:
    from pipelines.evaluation.registry import SUITES

    return [*((suite.name, suite.summary) for suite in SUITES.values()), *_prompt_sets()]


def _recipes() -> Iterable[tuple[str, str]]:
    from pipelines.recipes.recipe import shipped_names

    return [(name, "") for name in shipped_names()]


def _formats() -> Iterable[tuple[str, str]]:
    from data_registry.formats.registry import AUTO, FORMATS

    return [(name, "") for name in (AUTO, *FORMATS)]


def _judges() -> Iterable[tuple[str, str]]:
    from pipelines.evaluation.judges.registry import JUDGES

    return [(name, "") for name in JUDGES]


def _judge_formats() -> Iterable[tuple[str, str]]:
    from pipelines.evaluation.judges.formats import FORMATS

    return [(name, "") for name in FORMATS]


# By the name of the command and of the option's field. Files, which all of these take too, are the shell's own matter.
NAMES: Final[Mapping[tuple[str, str], Names]] = {
    ("prepare-data", "source"): _data_sets,
    ("prepare-data", "format"): _formats,
    ("sample", "data"): _prompt_sets,
    ("evaluate", "suite"): _suites,
    ("evaluate", "judge"): _judges,
    ("evaluate", "judge_format"): _judge_formats,
    ("merge", "suite"): _suites,
    ("judge", "judge"): _judges,
    ("judge", "judge_format"): _judge_formats,
    ("run", "recipe"): _recipes,
    ("slurm", "recipe"): _recipes,
}


def completer(command: str, field: str, choices: Iterable[str]) -> Callable[[str], list[tuple[str, str]]] | None:
    """What completes a value of an option; None where ogpsa knows of no values, so that the shell offers files.

    Args:
        command: the command's name.
        field: the option's field.
        choices: the only values that the option takes, if there are such.

    Returns:
        a function from the beginning of a word to the values that begin so, each with a line that explains it.
    """
    known = NAMES.get((command, field))
    choices = list(choices)
    if known is None and not choices:
        return None

    def values(incomplete: str) -> list[tuple[str, str]]:
        named = known() if known is not None else [(choice, "") for choice in choices]
        return [(name, short(text)) for name, text in named if name.startswith(incomplete)]

    return values


def with_short_help(items: Iterable[Any]) -> list[Any]:
    """Typer's completions, each explained in one line."""
    items = list(items)
    for item in items:
        if item.help:
            item.help = short(item.help)
    return items


def short(text: str) -> str:
    """The first sentence, or the beginning of it, without what zsh and fish read as more than text."""
    first = text.partition(". ")[0].removesuffix(".").translate(str.maketrans("[]'", "()\u2019", '`"$\\'))
    return textwrap.shorten(first, _LONGEST_HELP, placeholder=" ...")


def settle(environ: MutableMapping[str, str]) -> None:
    """Make of what a shell hands over what Typer expects.

    Args:
        environ: the variables of the process, which are changed.
    """
    # Typer breaks the lines that explain values as if for a terminal, and shells read one value in each line.
    environ["TERMINAL_WIDTH"] = "1000"
    # bash makes three words of --suite=xs, and puts each word on a line.
    words, position = environ.get("COMP_WORDS", "").split("\n"), environ.get("COMP_CWORD", "")
    signs = [index for index, word in enumerate(words) if word == "=" and words[index - 1].startswith("--")]
    if signs and position.isdecimal():
        environ["COMP_WORDS"] = "\n".join(word for index, word in enumerate(words) if index not in signs)
        environ["COMP_CWORD"] = str(int(position) - sum(index < int(position) for index in signs))
