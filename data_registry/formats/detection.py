"""Which format rows have, found out from their columns."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_registry.core.errors import ConfigError, InputError
from data_registry.formats.columns import ColumnCheck
from data_registry.formats.conversations import SHAREGPT
from data_registry.formats.layout import Layout, as_spelled, columns_of, fields_of, missing_fields
from data_registry.formats.meanings import REJECTED_NAMES, normal
from data_registry.formats.preferences import PREFERENCE
from data_registry.formats.registry import FORMATS, make_layout
from data_registry.formats.unrecognised import guess
from data_registry.schema import MEANING, RejectedRow, Task
from data_registry.values import says_something

logger = logging.getLogger(__name__)


def detect(
    rows: Sequence[Mapping[str, Any]],
    *,
    task: Task | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    where: str = "",
) -> Layout:
    """The layout that most of the rows have.

    Of several that fit, those that would lose what another one reads are left out. Formats whose columns have common
    names are considered only where no other fits.

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
    fitting = _fitting(rows, columns, last=False)
    if not fitting:
        fitting = _fitting(rows, columns, last=True)
        for layout in fitting:
            _check_one_column(layout, rows, where)
    if len(fitting) == 1 and not columns:
        fitting = [_as_pairs(fitting[0], rows)]
    candidates = [layout for layout in fitting if task is None or task in FORMATS[layout.format].tasks]
    candidates = _without_loss(candidates, rows, task)
    if len(candidates) == 1:
        logger.info("rows are read as '%s': %s", candidates[0].format, FORMATS[candidates[0].format].description)
        return candidates[0]
    present = f"the columns are: {', '.join(_columns_of(rows)) or 'none'}"
    if not candidates:
        raise _not_recognised(rows, [layout.format for layout in fitting], task, present, where)
    names = [layout.format for layout in candidates]
    raise InputError(
        f"the rows could be read in several formats: {', '.join(names)}; {present}",
        where=where or None,
        fix=f"choose one:  --format {'  or  --format '.join(names)}",
    )


def spelled(layout: Layout, rows: Iterable[Mapping[str, Any]]) -> Layout:
    """The layout with the columns of rows that differ from those of the layout in spelling alone: ``Prompt``."""
    return Layout(layout.format, as_spelled(layout.columns, _columns_of(rows)), layout.tags, layout.only)


def _fitting(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None, *, last: bool) -> list[Layout]:
    layouts = [
        spelled(make_layout(name, columns), rows)
        for name, known in FORMATS.items()
        if known.last is last and set(columns or {}) <= set(known.columns)
    ]
    return [layout for layout in layouts if 2 * sum(_recognises(layout, row) for row in rows) > len(rows)]


def _recognises(layout: Layout, row: Mapping[str, Any]) -> bool:
    known = FORMATS[layout.format]
    fields = fields_of(row, layout.columns)
    return not missing_fields(fields, known.required) and known.recognises(fields)


def _without_loss(candidates: list[Layout], rows: Sequence[Mapping[str, Any]], task: Task | None) -> list[Layout]:
    """Those candidates that keep what the others read; all, if each would lose something of most rows.

    A format loses a column that changes what a row means, and one that it has no use for and another format has.
    """
    if len(candidates) < 2:
        return candidates

    used = [{name for row in rows for name in columns_of(row, layout.columns).values()} for layout in candidates]
    losing = []
    for layout, own in zip(candidates, used, strict=True):
        check = ColumnCheck(layout, task or FORMATS[layout.format].tasks[0])
        lost = 0
        for row in rows:
            try:
                unused = check(row, columns_of(row, layout.columns))
                lost += any(name in columns - own for name in unused for columns in used)
            except RejectedRow as outcome:
                lost += outcome.reason == MEANING
        losing.append(2 * lost > len(rows))
    return [layout for layout, loses in zip(candidates, losing, strict=True) if not loses] or candidates


def _check_one_column(layout: Layout, rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuse rows of which several columns may be the question, or the answer, because the others would be lost.

    Raises:
        InputError: most rows have something else in another candidate.
    """
    for field in ("prompt", "response"):
        names = [name for name in layout.columns[field] if any(says_something(row.get(name)) for row in rows)]
        several = 0
        for row in rows:
            held = [row[name] for name in names if says_something(row.get(name))]
            several += any(value != held[0] for value in held)
        if 2 * several > len(rows):
            choices = "  or  ".join(f"--set columns.{field}={name}" for name in names)
            raise InputError(
                f"several columns may be the {'question' if field == 'prompt' else 'answer'}: {', '.join(names)}",
                where=where or None,
                fix=f"name one:  --format {layout.format}  {choices}",
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


def _columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(column) for row in rows for column in row))


def _not_recognised(
    rows: Sequence[Mapping[str, Any]], others: Sequence[str], task: Task | None, present: str, where: str
) -> InputError:
    """The error for rows that no format fits, with what their form lets one guess."""
    what, fix = guess(rows) or ("", "")
    if others:
        what, fix = f"they look like {' or '.join(others)}, which has none for it", ""
    wanted = f" for {task}" if task else ""
    return InputError(
        f"the format of the rows is not recognised{wanted}{what and ': '}{what}; {present}",
        where=where or None,
        fix=fix.replace("FILE", shlex.quote(where or "FILE"))
        or "name it with --format, and columns that are called otherwise with --set columns.FIELD=COLUMN",
    )
