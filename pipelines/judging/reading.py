"""Answers made elsewhere, read from a file: prompts, answers, and what people say of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import InputRecord
from data_registry.core.visible import visible
from data_registry.formats.layout import as_spelled
from data_registry.formats.layout import text as text_of
from data_registry.formats.meanings import normal
from data_registry.formats.prompt_sets import GROUPS, HARMFUL, HARMLESS
from data_registry.schema import RejectedRow
from data_registry.sources.base import Source
from data_registry.sources.opening import Location, open_source
from data_registry.values import is_missing, says_something
from pipelines.configs.judge import COLUMNS, JudgeConfig
from pipelines.evaluation.contract.answer import StoredAnswer
from pipelines.evaluation.contract.verdict import Label
from pipelines.judging.labels import label_of, unknown_labels

logger = logging.getLogger(__name__)

UNSTATED: Final = "unstated"
"""The group of prompts of which nobody says whether they are harmful."""
_GROUP_WORDS: Final = {
    **dict.fromkeys(("harmful", "unsafe", "toxic", "malicious", "bad"), HARMFUL),
    **dict.fromkeys(("harmless", "safe", "benign", "unharmful", "good"), HARMLESS),
}
_NEEDED: Final = ("prompt", "answer")
_LOOKED_AT: Final = 50


@dataclass(frozen=True)
class Answers:
    """The answers of a file.

    Attributes:
        suite: the name under which verdicts have them: the file's.
        answers: one for each row, in order; the id is the row's number from 1.
        ids: the ids that the file gives, as text; empty where it gives none.
        labels: the class that people gave each answer; None where they gave none.
        columns: the columns that were used, by what they hold.
        inputs: records of what was read.
    """

    suite: str
    answers: list[StoredAnswer]
    ids: list[str]
    labels: list[Label | None]
    columns: Mapping[str, str]
    inputs: list[InputRecord]

    @property
    def num_labelled(self) -> int:
        """How many rows have a label."""
        return sum(label is not None for label in self.labels)


def read_answers_file(config: JudgeConfig) -> Answers:
    """The answers that the options name.

    Raises:
        InputError: the file cannot be read, or a row has no prompt, or none has an answer.
        ConfigError: nothing tells which columns are meant, or what a label or a group means.
    """
    path = config.source.expanduser()
    source = open_source(Location("local", str(path)))
    columns = _columns(source, config)
    suite = path.name.split(".")[0] or "answers"
    answers: list[StoredAnswer] = []
    ids: list[str] = []
    labels: list[Label | None] = []
    unknown: dict[str, str] = {}
    for number, (place, row) in enumerate(_rows(source), start=1):
        question, answer = (_text(row, columns[name], place) for name in _NEEDED)
        if question is None or not question.strip():
            raise InputError(f"a row has no prompt in column '{columns['prompt']}'", where=place)
        group = _group(row, columns.get("group"), config.prompts, place)
        finish = "end" if answer is not None else "missing"
        answers.append(StoredAnswer(suite, str(number), group, "", question, question, answer, None, finish, 0, 0))
        name = row.get(columns["id"]) if "id" in columns else None
        ids.append(visible(str(name)) if says_something(name) else "")
        labels.append(_label(row, columns.get("label"), config.labels, unknown, place))
    if unknown:
        raise unknown_labels(columns["label"], unknown)
    if not any(answer.answer is not None for answer in answers):
        raise InputError(f"no row of '{path}' has an answer in column '{columns['answer']}'")
    _say(answers, labels, columns)
    return Answers(suite, answers, ids, labels, columns, source.inputs())


def _say(answers: Sequence[StoredAnswer], labels: Sequence[Label | None], columns: Mapping[str, str]) -> None:
    logger.info("columns: %s", ", ".join(f"{name} from '{column}'" for name, column in columns.items()))
    missing = sum(answer.answer is None for answer in answers)
    if missing:
        logger.warning("%d of %d rows have no answer; they are in no figure", missing, len(answers))
    unlabelled = sum(label is None for label in labels)
    if "label" in columns and unlabelled:
        logger.warning("%d of %d rows have no label; agreement is counted without them", unlabelled, len(labels))


def _columns(source: Source, config: JudgeConfig) -> dict[str, str]:
    """The column of each field that the file has.

    Raises:
        ConfigError: a needed column is not there, is named but not there, or several might be meant.
    """
    sample = source.sample(_LOOKED_AT)
    present = list(dict.fromkeys(str(name) for row in sample for name in row))
    wanted = dict(COLUMNS)
    if config.ignore_labels:
        del wanted["label"]
    # Groups of users, say, are not what is asked for.
    said = [column for column in wanted["group"] if _says_groups(sample, column)]
    wanted["group"] = () if config.prompts is not None else tuple(said)
    problems = [
        f"there is no column '{column}'{suggest(column, present)}; there are: {', '.join(present)}"
        for column in config.columns.values()
        if column not in present
    ]
    found = {name: column for name, column in config.columns.items() if column in present}
    taken = set(found.values())
    for name, candidates in as_spelled({name: wanted[name] for name in wanted if name not in found}, present).items():
        here = [column for column in candidates if column in present and column not in taken]
        if len(here) > 1 and name not in config.columns:
            problems.append(
                f"columns {' and '.join(map(repr, here))} may each hold the {name}: "
                f"say which, as --set columns.{name}={here[0]}"
            )
        if here:
            found[name] = here[0]
    problems += [
        f"no column holds the {name}; there are: {', '.join(present)}: name it, as --set columns.{name}=COLUMN"
        for name in _NEEDED
        if name not in found and name not in config.columns
    ]
    if len(set(found.values())) < len(found):
        problems.append("one column cannot hold two things: " + ", ".join(f"{n}={c}" for n, c in found.items()))
    if problems:
        raise ConfigError(problems, where=str(config.source))
    return {name: found[name] for name in COLUMNS if name in found}


def _says_groups(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    values = [row[column] for row in rows if says_something(row.get(column))]
    return bool(values) and all(normal(str(value)) in _GROUP_WORDS for value in values)


def _rows(source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for chunk in source.chunks():
        for number, entry in chunk.entries():
            place = chunk.place(number)
            if not isinstance(entry, dict):
                raise InputError(f"a row cannot be read: {entry.detail}", where=place)
            yield place, entry


def _text(row: Mapping[str, Any], column: str, place: str) -> str | None:
    """The text in a column; None where the row has none. Empty text is an answer, that of a model that says nothing."""
    value = row.get(column)
    if is_missing(value):
        return None
    fix = "give prompts and answers as text, one of each in a row"
    try:
        text = text_of(value, column)
        text.encode()
    except RejectedRow as error:
        raise InputError(str(error), where=place, fix=fix) from error
    except UnicodeEncodeError as error:
        what = f"the text in column '{column}' holds half of a surrogate pair, which is no character"
        raise InputError(what, where=place, fix=fix) from error
    return text


def _group(row: Mapping[str, Any], column: str | None, stated: str | None, place: str) -> str:
    if column is None:
        return stated or UNSTATED
    value = row.get(column)
    found = _GROUP_WORDS.get(normal(str(value))) if says_something(value) else None
    if found is None:
        raise InputError(
            f"column '{column}' says '{str(value)[:60]}' of a prompt, which is neither {' nor '.join(GROUPS)}",
            where=place,
            fix="correct it; or say what all prompts are, as --prompts harmful; then the column is not read",
        )
    return found


def _label(
    row: Mapping[str, Any], column: str | None, meanings: Mapping[str, str], unknown: dict[str, str], place: str
) -> Label | None:
    value = row.get(column) if column is not None else None
    if column is None or not says_something(value):
        return None
    found = label_of(value, column, meanings)
    if found is None:
        unknown.setdefault(str(value).strip(), place)
    return found
