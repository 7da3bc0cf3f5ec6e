"""Prompt sets: requests without answers, for evaluation, with whether each is harmful."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from data_registry.core.documents import read_text, suggest
from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import InputRecord, hash_file
from data_registry.formats.layout import is_text
from data_registry.formats.prompt_sets import CONTEXT_SEPARATOR, HARMFUL, HARMLESS, PromptLayout
from data_registry.hub.errors import NotFetchedError
from data_registry.prompts.columns import PromptColumns, context_column
from data_registry.prompts.specs import Prompt, PromptSet, PromptSetSpec
from data_registry.sources.base import Source
from data_registry.sources.files import kind_of, kinds
from data_registry.sources.opening import Location, open_source
from data_registry.values import says_something

# Names that prompt sets give to the column with the request, in any case of letters, tried in order.
_PROMPT_COLUMNS: Final = ("prompt", "question", "instruction", "goal", "behavior", "forbidden_prompt", "text")


def read_prompt_set(spec: PromptSetSpec, base: Path | None = None) -> PromptSet:
    """Read a prompt set; one of the hub is fetched, unless it is in the cache.

    Args:
        spec: the prompt set to read.
        base: folder that a relative path starts from; the working directory by default.

    Raises:
        InputError: the set cannot be found, is empty, or a row has no prompt or an unknown label.
        ConfigError: options do not go with it, or it has not a column that is named.
    """
    location, layout = _locate(spec, base)
    if layout is None:
        raise ConfigError(
            f"nothing says which prompts of '{spec.data}' are harmful",
            fix="add to the set:  layout: {harmful: true}, or {label: {column: ..., harmful: [...], harmless: [...]}}",
        )
    location = location.on_this_machine()
    path = Path(location.name)
    if location.kind == "local" and path.suffix.lower() == ".txt":
        rows, inputs = _text_rows(path), [_file_record(path)]
    else:
        if location.kind == "local" and path.is_file() and kind_of(path) is None:
            raise InputError(f"'{path}' is of no kind that can be read", fix=f"kinds are: {kinds()}, .txt")
        rows, inputs = _open(location)
    prompts = _read(rows, layout, spec.data)
    _check_ids(prompts, spec.data)
    return PromptSet(spec.title, prompts, inputs, location.split or "all")


def prompt_set_names() -> list[str]:
    """The names of the registry's prompt sets, sorted."""
    from data_registry.registry.listing import list_entries

    return [entry.name for entry in list_entries() if entry.task == "prompts"]


def _open(location: Location) -> tuple[Iterator[tuple[str, Mapping[str, Any]]], list[InputRecord]]:
    try:
        source = open_source(location)
        return _source_rows(source), source.inputs()
    except NotFetchedError as error:
        raise _to_be_fetched(error) from error


def _read(rows: Iterable[tuple[str, Mapping[str, Any]]], layout: PromptLayout, name: str) -> list[Prompt]:
    try:
        prompts = list(_prompts(rows, layout, name))
    except NotFetchedError as error:
        raise _to_be_fetched(error) from error
    if not prompts:
        lacks = f": no row has {', '.join(map(str, layout.where))} as 'where' says" if layout.where else ""
        raise InputError(f"the prompt set '{name}' is empty{lacks}")
    return prompts


def _to_be_fetched(error: NotFetchedError) -> InputError:
    fix = "fetch it where there is a network, with the same suites and HF_HOME:  "
    return InputError(error.what, where=error.where, fix=f"{fix}ogpsa evaluate --suite SUITE --download-only")


def _locate(spec: PromptSetSpec, base: Path | None) -> tuple[Location, PromptLayout | None]:
    from data_registry.registry.listing import list_entries
    from data_registry.sources.opening import is_hub_id

    entries = {entry.name: entry for entry in list_entries() if entry.task == "prompts"}
    if spec.data in entries:
        entry = entries[spec.data]
        found = entry.location()
        location = Location(
            found.kind, found.name, spec.subset or found.subset, found.data_dir, spec.split or found.split,
            spec.revision or found.revision, file=found.file,
        )  # fmt: skip
        assert entry.prompts is not None, "the registry checks it"
        kept = entry.prompts.model_copy(update={"where": {**entry.where, **entry.prompts.where}})
        return location, spec.layout or kept
    path = Path(os.path.expanduser(spec.data))
    path = path if path.is_absolute() or base is None else base / path
    looks_like_path = spec.data.startswith((".", "/", "~")) or kind_of(path) is not None or path.suffix == ".txt"
    if path.exists() or looks_like_path or spec.data.count("/") > 1:
        if not path.exists():
            raise InputError(f"the prompt set '{path}' does not exist")
        return _local(spec, path), spec.layout
    if is_hub_id(spec.data):
        return Location("hub", spec.data, subset=spec.subset, split=spec.split, revision=spec.revision), spec.layout
    raise InputError(
        f"'{spec.data}' is neither a prompt set of the registry nor a path{suggest(spec.data, entries, most=3)}",
        fix=f"the registry has: {', '.join(sorted(entries))}",
    )


def _local(spec: PromptSetSpec, path: Path) -> Location:
    """A prompt set on this machine.

    Raises:
        ConfigError: the suite asks for a part of it that such a set does not have.
    """
    asked = [f"'revision: {spec.revision}'"] if spec.revision is not None else []
    if path.is_file():
        named = {"subset": spec.subset, "split": spec.split}
        asked += [f"'{key}: {value}'" for key, value in named.items() if value is not None]
    if asked:
        raise ConfigError(
            f"{' and '.join(asked)} would have no effect: '{path}' is a {'file' if path.is_file() else 'directory'}",
            fix="leave it out of the suite file, or name the data set of the hub that it is about",
        )
    return Location("local", str(path), subset=spec.subset, split=spec.split)


def _text_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # str.splitlines would also cut a prompt at a form feed, or at U+2028 as web pages have it.
    lines = io.StringIO(read_text(path, "prompt set"), newline=None)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}:{number}", {"prompt": line.strip()}


def _source_rows(source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for chunk in source.chunks():
        for number, entry in chunk.entries():
            place = chunk.place(number)
            if not isinstance(entry, dict):
                raise InputError(f"the prompt set has a row that cannot be read: {entry.detail}", where=place)
            yield place, entry


def _file_record(path: Path) -> InputRecord:
    try:
        digest = hash_file(path)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from error
    return InputRecord(role="source", path=os.path.abspath(path), kind="file", fingerprint=digest)


def _prompts(rows: Iterable[tuple[str, Mapping[str, Any]]], layout: PromptLayout, name: str) -> Iterator[Prompt]:
    column, about, others = layout.prompt, layout.context, PromptColumns(layout, set())
    for index, (place, row) in enumerate(rows, start=1):
        if index == 1:
            _check_columns(row, layout, name)
            column = layout.prompt or _prompt_column(row, name)
            about = context_column(row, layout)
            others = PromptColumns(layout, {used for used in (column, about) if used is not None})
        assert column is not None
        if not layout.takes(row):
            continue
        text = layout.request(row.get(column))
        if not is_text(text):
            what = "no single text" if layout.in_list else "no text"
            raise InputError(f"a row of '{name}' has {what} in column '{column}'", where=place)
        others.check(row, text, place)
        context = _written(row, about).strip()
        yield Prompt(
            str(row[layout.id]) if layout.id else str(index),
            _group(row, layout, place),
            f"{context}{CONTEXT_SEPARATOR}{text}" if context else text,
            _written(row, layout.category),
            context,
        )
    others.say_unused(name)


def _written(row: Mapping[str, Any], column: str | None) -> str:
    """A value as text; empty where there is no such column or no value."""
    value = row.get(column) if column is not None else None
    return str(value) if says_something(value) else ""


def _group(row: Mapping[str, Any], layout: PromptLayout, place: str) -> str:
    if layout.label is None:
        return HARMFUL if layout.harmful else HARMLESS
    value = row.get(layout.label.column)
    group = layout.label.group(value)
    if group is None:
        known = ", ".join([*layout.label.harmful, *layout.label.harmless])
        raise InputError(
            f"column '{layout.label.column}' has '{value}', which is none of: {known}",
            where=place,
            fix="name the value under 'harmful' or 'harmless' of the set's label",
        )
    return group


def _check_columns(row: Mapping[str, Any], layout: PromptLayout, name: str) -> None:
    present = [str(key) for key in row]
    problems = [
        f"there is no column '{column}'{suggest(column, present)}; there are: {', '.join(present)}"
        for column in layout.columns
        if column not in present
    ]
    if problems:
        raise ConfigError(problems, where=name)


def _prompt_column(row: Mapping[str, Any], name: str) -> str:
    # Authors' files have Behavior and Goal where others have behavior and goal.
    texts = {str(column).lower(): str(column) for column, value in row.items() if isinstance(value, str)}
    found = next((texts[column] for column in _PROMPT_COLUMNS if column in texts), None)
    if found is None:
        raise InputError(
            f"'{name}' has no column with prompts; there are: {', '.join(map(str, row))}",
            fix=f"call it one of {', '.join(_PROMPT_COLUMNS)}, or name it in a suite file (layout: {{prompt: COLUMN}})",
        )
    return found


def _check_ids(prompts: Sequence[Prompt], name: str) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise InputError(f"the prompt set '{name}' has two rows with the id '{prompt.id}'")
        seen.add(prompt.id)
