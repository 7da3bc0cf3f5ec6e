"""How data sets lay out their rows: the registry of formats, and reading a row into normal form."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError
from data_registry.formats.choices import CHOICES
from data_registry.formats.conversations import MESSAGES, SHAREGPT, TRANSCRIPTS
from data_registry.formats.layout import TAGS, Columns, Format, Layout, columns_of, missing_fields
from data_registry.formats.pairs import ALPACA, GSM8K, PROMPT_COMPLETION, PROMPT_RESPONSE, QUESTION_ANSWER
from data_registry.formats.preferences import PREFERENCE, SAFERLHF, SAMPLES
from data_registry.formats.rewrites import REWRITE
from data_registry.formats.transcripts import check_no_transcript
from data_registry.schema import EMPTY, UNREADABLE, RejectedRow, Row, Task

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
    SAMPLES,
    REWRITE,
    PROMPT_RESPONSE,
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
