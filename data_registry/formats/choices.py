"""The format with a question, several choices and which of them is right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any, Final

from data_registry.core.json_text import decode
from data_registry.formats.layout import ASKED, Fields, Format, Tags, is_text, opening
from data_registry.formats.pairs import question_of
from data_registry.schema import UNREADABLE, RejectedRow, Row, Task, message, sft_row

_OPTION: Final = re.compile(r"^\(?([A-Z])[.):]\s+(\S.*)$")


def read_choices(fields: Fields, task: Task, tags: Tags) -> Row:
    """The question with its choices, one a line behind a letter, and the right one as the answer: ``B. Paris``."""
    question = question_of(fields).strip()
    options, labels = _options(fields.get("choices"))
    right = _right(fields.get("answer"), labels, options)
    lines = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    asked = "\n".join([question, "", *lines])
    return sft_row([*opening(fields), message("user", asked), message("assistant", lines[right])])


def _options(value: Any) -> tuple[list[str], list[str]]:
    """The texts and labels of choices: a list of texts, or lists ``text`` and ``label`` as ARC has them."""
    labels = None
    value = _decoded(value)
    if isinstance(value, Mapping):
        value, labels = value.get("text"), value.get("label")
    if not isinstance(value, list) or not 2 <= len(value) <= len(ascii_uppercase) or not all(map(is_text, value)):
        raise RejectedRow(UNREADABLE, "the choices are not a list of two to 26 texts")
    if labels is None:
        labels = list(ascii_uppercase[: len(value)])
    if not isinstance(labels, list) or len(labels) != len(value):
        raise RejectedRow(UNREADABLE, "there is not one label for each choice")
    return [" ".join(option.split()) for option in value], [str(label) for label in labels]


def _decoded(value: Any) -> Any:
    """The choices of their JSON text, as CSV files have them; anything else as it is."""
    try:
        return decode(value) if isinstance(value, str) and value.lstrip().startswith(("[", "{")) else value
    except ValueError:
        return value


def _right(answer: Any, labels: list[str], options: list[str]) -> int:
    """The right choice's place: by its label, by its number from 0, or by its text."""
    if isinstance(answer, str) and answer.strip() in labels:
        return labels.index(answer.strip())
    if isinstance(answer, float) and answer.is_integer():
        # So pandas writes whole numbers of a column in which some are missing.
        answer = int(answer)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(labels):
        return answer
    if isinstance(answer, str) and answer.strip().isdecimal() and int(answer) < len(labels):
        return int(answer)
    if isinstance(answer, str) and options.count(" ".join(answer.split())) == 1:
        return options.index(" ".join(answer.split()))
    raise RejectedRow(UNREADABLE, f"the answer is '{answer}', which names none of {len(labels)} choices")


def _is_choices(fields: Fields) -> bool:
    choices = _decoded(fields["choices"])
    options = choices.get("text") if isinstance(choices, Mapping) else choices
    return is_text(fields["prompt"]) and isinstance(options, list)


def options_of(question: str) -> list[str]:
    """The lines of a question that are options: ``A. ...``, ``B. ...`` and so on; empty where there are none."""
    found: list[str] = []
    for line in question.splitlines():
        match = _OPTION.match(line.strip())
        if match and match[1] == ascii_uppercase[len(found) % 26]:
            found.append(line.strip())
    return found if len(found) >= 2 else []


CHOICES: Final = Format(
    "choices",
    "a question, its choices (a list, or lists text and label) and the right one's number from 0 or label",
    ("sft",),
    {
        "prompt": ("question", "prompt"),
        "choices": ("choices", "options"),
        "answer": ("answerKey", "answer", "label", "gold"),
        **ASKED,
    },
    ("prompt", "choices", "answer"),
    read_choices,
    _is_choices,
)
