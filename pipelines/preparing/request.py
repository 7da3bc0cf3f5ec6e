"""Finds out what ``prepare-data`` is asked for, from its options, the registry entry and the data together."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import InputRecord
from data_registry.formats.columns import ColumnCheck, without
from data_registry.formats.detection import detect, spelled
from data_registry.formats.layout import Layout, columns_of, fields_of
from data_registry.formats.preferences import SAMPLES
from data_registry.formats.registry import AUTO, FORMATS, find_format, make_layout
from data_registry.registry.entry import Entry
from data_registry.registry.listing import list_entries
from data_registry.schema import EXTRA, RejectedRow, Task
from data_registry.sources.base import Source
from data_registry.sources.files import kind_of
from data_registry.sources.graded_samples import GradedSamples
from data_registry.sources.opening import Location, is_hub_id, open_source
from data_registry.sources.pairing import QUESTIONS
from data_registry.values import says_something
from pipelines.configs.prepare_data import PrepareDataConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """The source of the rows, and which of them are wanted.

    Attributes:
        source: the opened source.
        location: the place where the data lie.
        entry: the registry's entry if the source was given by its name there, else None.
        where: the values that columns must have for a row to be taken.
        num_samples: the number of rows to draw; None for all.
        ignore: columns and keys of messages that may be lost.
    """

    source: Source
    location: Location
    entry: Entry | None
    where: Mapping[str, str]
    num_samples: int | None
    ignore: tuple[str, ...] = ()

    def inputs(self) -> list[InputRecord]:
        """The manifest's records of the source and of its registry entry."""
        records = self.source.inputs()
        if self.entry is not None:
            told = self.entry.model_dump_json(include={"task", "source", "format", "columns", "only_columns", "tags"})
            told += f"{dict(self.where)}{self.num_samples}{self.entry.ignore_columns or ''}"
            fingerprint = hashlib.sha256(told.encode()).hexdigest()
            records.append(InputRecord(role="entry", path=self.entry.name, kind="entry", fingerprint=fingerprint))
        return records


def open_request(config: PrepareDataConfig) -> Request:
    """Find out what ``config.source`` means, and open it.

    A name in the registry goes before a path of the same name, which can be given as ``./name``.

    Raises:
        InputError: there is no such source, or the entry cannot be used.
        ConfigError: there are options that do not go with the source.
        ArtifactError: the source is an artifact that cannot be used.
    """
    assert config.source is not None, "the configuration is checked for it"
    entry = _find_entry(config.source, config.registry)
    location = entry.location() if entry is not None else _unregistered(config.source, config.registry)
    if location.kind != "hub" and (config.revision or config.streaming):
        raise ConfigError("--revision and --streaming are for data sets of the hub", where=config.source)
    if location.kind == "embedded" and (config.subset or config.source_split):
        raise ConfigError("--subset and --source-split are not for the embedded testbed", where=config.source)
    num_samples = config.num_samples or (entry.num_samples if entry else None)
    is_drawn = num_samples is not None or config.format == SAMPLES.name
    if config.seed != type(config).model_fields["seed"].default and not is_drawn:
        raise ConfigError("--seed needs --num-samples: it has no effect where all rows are taken")
    location = replace(
        location,
        subset=config.subset or location.subset,
        split=config.source_split or location.split,
        revision=config.revision or location.revision,
        streaming=config.streaming,
    )
    return Request(
        _graded_samples(location, config) if config.format == SAMPLES.name else open_source(location),
        location,
        entry,
        {**(entry.where if entry else {}), **config.where},
        num_samples,
        tuple(dict.fromkeys([*(entry.ignore_columns if entry else ()), *config.ignore_columns])),
    )


def _graded_samples(location: Location, config: PrepareDataConfig) -> Source:
    if location.kind != "local":
        raise ConfigError(
            "--format samples reads a folder that 'ogpsa sample --grade' made, and no data set by name",
            where=config.source,
        )
    if location.subset or location.split:
        raise ConfigError("--subset and --source-split are not for samples", where=config.source)
    return GradedSamples(
        Path(location.name).expanduser(),
        pairs_per_prompt=config.pairs_per_prompt,
        seed=config.seed,
        use_reference=config.missing == "gold",
    )


def _find_entry(name: str, registry: Path | None) -> Entry | None:
    entries = {entry.name: entry for entry in list_entries(registry)}
    if name not in entries:
        return None
    if Path(name).exists():
        logger.info("'%s' is read as the registry's entry; the path of that name is meant by ./%s", name, name)
    entry = entries[name]
    logger.info("'%s' is the entry of %s", name, entry.origin)
    if entry.problem is not None:
        raise InputError(f"the entry '{name}' cannot be used: {entry.problem}", where=entry.origin)
    if entry.task == "prompts":
        raise InputError(
            f"'{name}' has prompts without answers: there is nothing to train on",
            fix=f"evaluate on it:  ogpsa evaluate MODEL --suite {name} --out DIR\n"
            f"or let a model answer it:  ogpsa sample MODEL --data {name} --out DIR",
        )
    return entry


def _unregistered(name: str, registry: Path | None) -> Location:
    path = Path(name).expanduser()
    looks_like_path = name.startswith((".", "/", "~")) or kind_of(path) is not None or name.count("/") > 1
    if path.exists() or looks_like_path:
        return Location("local", str(path))
    if is_hub_id(name):
        return Location("hub", name)
    names = [entry.name for entry in list_entries(registry)]
    raise InputError(
        f"'{name}' is neither in the registry nor a path{suggest(name, names, most=3)}",
        fix="see the registry with:  ogpsa prepare-data --list",
    )


def choose_layout(request: Request, config: PrepareDataConfig) -> tuple[Layout, Task]:
    """Choose the layout and the task of the rows: options decide first, then the entry, the source and the rows.

    Raises:
        ConfigError: the format has no such column, or no rows for the task.
        InputError: there are no rows, no format fits, several formats fit, or a column that was named is not there.
    """
    sample = request.source.sample()
    _check_columns({**config.columns, **{key: key for key in request.where}}, sample, request.source.name)
    sample = [{name: value for name, value in row.items() if name not in request.ignore} for row in sample]
    entry = request.entry
    asked = config.task if config.task != "auto" else None
    if config.format != AUTO and (entry is None or entry.format != config.format):
        layout = make_layout(config.format, config.columns, config.tags)
    elif entry is not None and entry.format != AUTO:
        columns, tags = {**entry.columns, **config.columns}, {**entry.tags, **config.tags}
        layout = make_layout(entry.format, columns, tags, only=entry.only_columns)
    elif request.source.layout_hint is not None:
        layout = make_layout(request.source.layout_hint, config.columns, config.tags)
    else:
        where = request.source.name
        layout = detect(sample, task=asked, columns=config.columns, tags=config.tags, where=where)
    layout = spelled(layout, sample)
    task = _choose_task(layout, asked, request, sample)
    return _with_extra(layout, task, {*config.columns, *(entry.columns if entry is not None else ())}, request), task


def _choose_task(layout: Layout, asked: Task | None, request: Request, sample: Sequence[Mapping[str, Any]]) -> Task:
    tasks = find_format(layout.format).tasks
    if asked is not None:
        if asked not in tasks:
            raise ConfigError(f"format '{layout.format}' has rows for {' and '.join(tasks)}, not for {asked}")
        return asked
    told = request.entry.task if request.entry is not None else request.source.task_hint
    for task in tasks:
        if task == told:
            return task
    if len(tasks) == 1:
        return tasks[0]
    pairs = sum(bool({"rejected", "response_1"} & set(fields_of(row, layout.columns))) for row in sample)
    task = "preference" if 2 * pairs > len(sample) else "sft"
    logger.info("rows are made into %s; '%s' can give %s (--task)", task, layout.format, " or ".join(tasks))
    return task


def _with_extra(layout: Layout, task: Task, declared: Collection[str], request: Request) -> Layout:
    """The layout with those fields beside messages that its rows are to have: they were named, or are there.

    Raises:
        ConfigError: one was named, and rows for the task have no place for it.
    """
    columns = dict(layout.columns)
    for name in {name for names in EXTRA.values() for name in names} & set(columns):
        if name in declared and name not in EXTRA[task]:
            raise ConfigError(f"rows for {task} have no '{name}', which --set columns.{name} names")
        rows = request.source.sample()
        # A prepared data set keeps its columns, whatever is in them.
        is_there = request.source.layout_hint is not None and any(name in row for row in rows)
        is_there |= any(says_something(row.get(column)) for row in rows for column in columns[name])
        if name not in EXTRA[task] or not (name in declared or is_there):
            columns[name] = ()
    return replace(layout, columns=columns)


def _check_columns(columns: Mapping[str, str], sample: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuse column names that no row has, because every row would be rejected for the missing column."""
    present = list(dict.fromkeys(str(name) for row in sample for name in row))
    problems = [
        f"there is no column '{column}'{suggest(column, present)}; there are: {', '.join(present)}"
        for column in columns.values()
        if column not in present
    ]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), where=where)


def format_description(layout: Layout) -> str:
    """The layout in one line: the format and the columns that were named."""
    usual = FORMATS[layout.format].columns
    named = {
        key: next((name for name in names if name not in usual[key]), names[0])
        for key, names in layout.columns.items()
        if names != usual[key] and names
    }
    return layout.format + (f" ({', '.join(f'{key}={column}' for key, column in named.items())})" if named else "")


def look_at_columns(request: Request, layout: Layout, task: Task) -> list[tuple[str, str]]:
    """What the first rows hold beside what is used, as pairs of a heading and a text; empty where there is nothing.

    Raises:
        InputError: there are no rows.
    """
    layout = without(layout, request.ignore)
    check = ColumnCheck(layout, task, chosen_by=request.where, ignored=request.ignore)
    unused: dict[str, None] = {}
    refused: dict[str, str] = {}
    for row in request.source.sample():
        try:
            unused.update(dict.fromkeys(check(row, columns_of(row, layout.columns))))
        except RejectedRow as outcome:
            refused.setdefault(outcome.reason, outcome.detail)
    shown = [("not used", ", ".join(list(unused)[:12]))] if unused else []
    return [*shown, *((f"{reason} rows", detail) for reason, detail in refused.items())]


def look_at_questions(request: Request) -> list[tuple[str, str]]:
    """What the questions of samples give, as a pair of a heading and a text; empty for other sources."""
    if not isinstance(request.source, GradedSamples):
        return []
    account = request.source.account
    return [("questions", ", ".join(f"{account[kind]} {told}" for kind, told in QUESTIONS.items()))]
