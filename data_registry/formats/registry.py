"""How data sets lay out their rows: the registry of formats, their detection, and reading a row into normal form."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError
from data_registry.formats.choices import CHOICES
from data_registry.formats.conversations import MESSAGES, SHAREGPT, TRANSCRIPTS
from data_registry.formats.layout import TAGS, Columns, Format, Layout, columns_of, fields_of, missing_fields
from data_registry.formats.meanings import REJECTED_NAMES, normal
from data_registry.formats.pairs import ALPACA, GSM8K, PROMPT_COMPLETION, QUESTION_ANSWER
from data_registry.formats.preferences import PREFERENCE, SAFERLHF
from data_registry.formats.transcripts import check_no_transcript
from data_registry.schema import EMPTY, UNREADABLE, RejectedRow, Row, Task
from data_registry.values import says_something

logger = logging.getLogger(__name__)

AUTO: Final = "auto"
FORMATS: Final[dict[str, Format]] = {}


def register(added: Format) -> Format:
    """Add a format to the registry.

    Raises:
        ValueError: the name is taken.
    """
    if added.name in FORMATS or added.name == AUTO:
        raise ValueError(f"there is a format '{added.name}' already")
    FORMATS[added.name] = added
    return added


for _format in (
    ALPACA,
    SHAREGPT,
    MESSAGES,
    PROMPT_COMPLETION,
    TRANSCRIPTS,
    GSM8K,
    QUESTION_ANSWER,
    CHOICES,
    PREFERENCE,
    SAFERLHF,
):
    register(_format)


def find_format(name: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: there is none; with the nearest and all names.
    """
    if name not in FORMATS:
        raise ConfigError(
            f"unknown format '{name}'{suggest(name, [AUTO, *FORMATS])}", fix=f"one of: {', '.join([AUTO, *FORMATS])}"
        )
    return FORMATS[name]


def make_layout(
    name: str, columns: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None, *, only: bool = False
) -> Layout:
    """A format with column names and tags put in.

    Args:
        name: the name of the format.
        columns: the column that holds a field, for the fields that are named.
        tags: the key or role name that stands for one of ``TAGS``, for those that are named.
        only: the columns named are all there are; by default the others keep the format's names.

    Raises:
        ConfigError: the format has no such field, or there is no such tag; all problems at once.
    """
    found = find_format(name)
    columns, tags = columns or {}, tags or {}
    problems = [
        f"format '{name}' has no column '{key}'{suggest(key, list(found.columns))}; it has: {', '.join(found.columns)}"
        for key in columns
        if key not in found.columns
    ]
    problems += [
        f"unknown tag '{key}'{suggest(key, list(TAGS))}; tags are: {', '.join(TAGS)}" for key in tags if key not in TAGS
    ]
    if problems:
        raise ConfigError(problems)
    rest: Columns = dict.fromkeys(found.columns, ()) if only else found.columns
    return Layout(name, {**rest, **{key: (column,) for key, column in columns.items()}}, {**TAGS, **tags}, only)


def detect(
    rows: Sequence[Mapping[str, Any]],
    *,
    task: Task | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    where: str = "",
) -> Layout:
    """The layout that most of the rows have.

    Args:
        rows: some rows from the beginning of the data.
        task: considers only formats that serve it, where given.
        columns: as for :func:`make_layout`; only formats that have these fields are considered.
        tags: as for :func:`make_layout`.
        where: the source, for messages.

    Raises:
        InputError: no format fits, or several do.
        ConfigError: there is no such column or tag in any format.
    """
    if tags:
        return make_layout(SHAREGPT.name, columns, tags)
    if columns and not any(set(columns) <= set(known.columns) for known in FORMATS.values()):
        fields = sorted({field for known in FORMATS.values() for field in known.columns})
        raise ConfigError(
            f"no format has the columns {', '.join(columns)} together",
            fix=f"name the format with --format; fields that formats have: {', '.join(fields)}",
        )
    fitting = [
        make_layout(name, columns) for name, known in FORMATS.items() if set(columns or {}) <= set(known.columns)
    ]
    fitting = [layout for layout in fitting if 2 * sum(_recognises(layout, row) for row in rows) > len(rows)]
    if len(fitting) == 1 and not columns:
        fitting = [_as_pairs(fitting[0], rows)]
    candidates = [layout for layout in fitting if task is None or task in FORMATS[layout.format].tasks]
    if len(candidates) == 1:
        logger.info("rows are read as '%s': %s", candidates[0].format, FORMATS[candidates[0].format].description)
        return candidates[0]
    present = f"the columns are: {', '.join(_columns_of(rows)) or 'none'}"
    if not candidates:
        wanted = f" for {task}" if task else ""
        raise InputError(
            f"the format of the rows is not recognised{wanted}; {present}",
            where=where or None,
            fix="name it with --format, and columns that are called otherwise with --set columns.FIELD=COLUMN",
        )
    names = [layout.format for layout in candidates]
    raise InputError(
        f"the rows could be read in several formats: {', '.join(names)}; {present}",
        where=where or None,
        fix=f"choose one:  --format {'  or  --format '.join(names)}",
    )


def _as_pairs(layout: Layout, rows: Sequence[Mapping[str, Any]]) -> Layout:
    """The layout, or that of preference pairs if most rows hold a rejected answer besides (as ms-swift has them)."""
    if FORMATS[layout.format].tagged:
        return layout
    for column in _columns_of(rows):
        holding = [row for row in rows if says_something(row.get(column))]
        if normal(column) not in REJECTED_NAMES or 2 * len(holding) <= len(rows):
            continue
        used = columns_of(holding[0], layout.columns)
        answer = next((used[name] for name in ("messages", "response", "completion") if name in used), None)
        if answer is not None and column not in used.values():
            prompt = {"prompt": used["prompt"]} if "prompt" in used else {}
            logger.info("'%s' is read as the chosen answer, '%s' as the rejected one", answer, column)
            return make_layout(PREFERENCE.name, {**prompt, "chosen": answer, "rejected": column})
    return layout


def _recognises(layout: Layout, row: Mapping[str, Any]) -> bool:
    known = FORMATS[layout.format]
    fields = fields_of(row, layout.columns)
    return not missing_fields(fields, known.required) and known.recognises(fields)


def _columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(column) for row in rows for column in row))


def read_row(row: Mapping[str, Any], layout: Layout, task: Task, columns: Mapping[str, str] | None = None) -> Row:
    """A row in normal form.

    Args:
        row: the row as its source has it.
        layout: how it is laid out.
        task: what it is made into.
        columns: the column of each field, where :func:`columns_of` has been asked already.

    Raises:
        RejectedRow: it cannot be used; with the reason.
    """
    known = FORMATS[layout.format]
    found = columns_of(row, layout.columns) if columns is None else columns
    fields = {name: row[column] for name, column in found.items()}
    missing = missing_fields(fields, known.required)
    if missing:
        names = [column for field in missing[0].split("|") for column in layout.columns.get(field, ())] or missing
        null = [name for name in names if name in row]
        if null:
            raise RejectedRow(EMPTY, f"'{null[0]}' is null")
        raise RejectedRow(UNREADABLE, f"there is no '{names[0]}' among the columns {', '.join(map(str, row))}")
    made = known.read(fields, task, layout.tags)
    check_no_transcript(made)
    return made
