"""The registry: data sets by name, each with source, revision, format, licence and citation.

Entries are YAML files, those of ``specs/`` and those of a folder that the user names; LLaMA-Factory's
``dataset_info.json`` is a registry as it is.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from data_registry.core.documents import read_text, suggest
from data_registry.core.errors import ConfigError, InputError
from data_registry.core.yaml_text import parse_yaml
from data_registry.registry.entry import Entry, make_entry

_SPECS: Final = Path(__file__).parents[1] / "specs"


def list_entries(registry: Path | None = None) -> list[Entry]:
    """All entries by name: those that come with ogpsa, and those of ``registry``, which take precedence.

    Args:
        registry: a ``dataset_info.json`` of LLaMA-Factory, a YAML entry, or a folder with either.

    Raises:
        ConfigError: an entry is wrong; with all problems of all of them.
    """
    entries = {entry.name: entry for entry in _load(_SPECS)}
    for entry in _load(registry) if registry is not None else ():
        entries[entry.name] = entry
    return sorted(entries.values(), key=lambda entry: entry.name)


def describe(name: str, registry: Path | None = None) -> Entry:
    """The entry of a name.

    Raises:
        InputError: there is none; with the nearest names.
        ConfigError: as for :func:`list_entries`.
    """
    entries = {entry.name: entry for entry in list_entries(registry)}
    if name not in entries:
        raise InputError(
            f"the registry has no '{name}'{suggest(name, entries, most=3)}",
            fix="see them with:  ogpsa prepare-data --list",
        )
    return entries[name]


def _load(path: Path) -> list[Entry]:
    from data_registry.registry.llamafactory import DATASET_INFO, read_dataset_info

    if not path.exists():
        raise ConfigError(f"the registry '{path}' does not exist")
    if path.is_dir() and (path / DATASET_INFO).is_file():
        path = path / DATASET_INFO
    if path.suffix == ".json":
        return read_dataset_info(path)
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"the registry '{path}' holds neither YAML entries nor a {DATASET_INFO}")
    entries: dict[str, Entry] = {}
    problems: list[str] = []
    for file in files:
        try:
            for entry in _read_file(file):
                if entry.name in entries:
                    problems.append(f"{file}: '{entry.name}' is defined in {entries[entry.name].origin} already")
                entries[entry.name] = entry
        except ConfigError as error:
            problems += [f"{error.where or file}: {problem}" for problem in error.problems]
        except InputError as error:
            problems.append(error.what)
    if problems:
        raise ConfigError(problems)
    return list(entries.values())


def _read_file(file: Path) -> list[Entry]:
    return list(_entries_of(read_text(file, "registry entry"), file))


@functools.cache
def _entries_of(text: str, file: Path) -> tuple[Entry, ...]:
    """The entries of a file's text. They are kept: the steps of a chain ask for them again and again."""
    content = parse_yaml(text, where=str(file))
    return tuple(make_entry(values, file) for values in (content if isinstance(content, list) else [content]))
