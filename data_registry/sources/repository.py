"""A folder that says by itself, as repositories of the hub do, which files make up its subsets and splits."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from data_registry.core.documents import read_text, suggest
from data_registry.core.errors import ConfigError, InputError
from data_registry.core.yaml_text import parse_yaml
from data_registry.sources.files import Files, FileSource, kind_of, kinds
from data_registry.sources.folder import check_within, within
from data_registry.sources.splits import choose_split

CARD: Final = "README.md"
# Keys of a subset that do not change what its rows are.
_NO_MATTER: Final = frozenset(
    {"config_name", "data_files", "data_dir", "default", "description", "version", "features"}
)


def is_repository(folder: Path) -> bool:
    """Whether the card of a folder says which files make up its subsets."""
    return (folder / CARD).is_file() and re.search(r"^configs:", _head(folder), re.MULTILINE) is not None


def open_repository(folder: Path, subset: str | None, data_dir: str | None, split: str | None) -> Files:
    """The rows of one split of one subset of a folder, read from the folder alone.

    Args:
        folder: a local copy of a repository.
        subset: the subset; may be left out where there is one, or one is the default.
        data_dir: a folder within it that is read instead of what the card says.
        split: the split; may be left out where there is one.

    Raises:
        InputError: there is no such subset, or its files are not there or cannot be read.
        ConfigError: its splits have to be chosen from, or the card asks for something that is not done.
    """
    if data_dir is not None:
        return FileSource(_directory(folder, data_dir), split)
    chosen = _choose(_configs(folder), subset, folder)
    unknown = [str(key) for key in chosen if key not in _NO_MATTER]
    if unknown:
        raise ConfigError(
            f"the card of '{folder}' asks for '{unknown[0]}', which is not done for a local folder",
            where=str(folder / CARD),
            fix="give the files themselves as the source",
        )
    below = _directory(folder, str(chosen["data_dir"])) if chosen.get("data_dir") else folder
    if chosen.get("data_files") is None:
        return FileSource(below, split)
    patterns = _patterns(chosen["data_files"], folder)
    name = choose_split(split, list(patterns), str(folder))
    files = [file for pattern in patterns[name] for file in _matching(below, pattern)]
    return Files(folder, sorted(dict.fromkeys(files)))


def _head(folder: Path) -> str:
    text = read_text(folder / CARD, "card")
    return text[3:].split("\n---", 1)[0] if text.startswith("---") else ""


def _configs(folder: Path) -> list[Mapping[str, Any]]:
    where = str(folder / CARD)
    content = parse_yaml(_head(folder), where=where)
    configs = content.get("configs") if isinstance(content, dict) else None
    if not isinstance(configs, list) or not configs or not all(isinstance(config, dict) for config in configs):
        raise ConfigError("'configs' is not a list of subsets", where=where)
    return configs


def _choose(configs: list[Mapping[str, Any]], subset: str | None, folder: Path) -> Mapping[str, Any]:
    named = {str(config.get("config_name", "default")): config for config in configs}
    if subset is not None:
        if subset not in named:
            raise InputError(
                f"'{folder}' cannot be read: there is no subset '{subset}'{suggest(subset, named)}; there are: "
                f"{', '.join(named)}"
            )
        return named[subset]
    default = [config for name, config in named.items() if config.get("default") is True or name == "default"]
    if len(named) == 1 or default:
        return default[0] if default else configs[0]
    raise ConfigError(
        f"there are several subsets: {', '.join(named)}", where=str(folder), fix="choose one with --subset"
    )


def _patterns(data_files: Any, folder: Path) -> dict[str, list[str]]:
    """The patterns of each split: of one text or list, of ``{split: patterns}``, or of ``{split, path}`` in a list."""
    by_split: dict[str, list[str]] = {}
    if isinstance(data_files, list) and all(isinstance(entry, dict) for entry in data_files):
        pairs = [(entry.get("split", "train"), entry.get("path")) for entry in data_files]
    else:
        pairs = list(data_files.items()) if isinstance(data_files, dict) else [("train", data_files)]
    for split, patterns in pairs:
        found = patterns if isinstance(patterns, list) else [patterns]  # one text stands for a list of one
        if not found or not all(isinstance(pattern, str) and pattern for pattern in found):
            raise ConfigError("'data_files' is not made of splits and their paths", where=str(folder / CARD))
        by_split.setdefault(str(split), []).extend(found)
    if not by_split:
        raise ConfigError("'data_files' names no files", where=str(folder / CARD))
    return by_split


def _matching(folder: Path, pattern: str) -> list[Path]:
    exact = within(folder, pattern)
    files = [exact] if exact.is_file() else []
    if not files:
        names = sorted(glob.glob(pattern, root_dir=folder, recursive=True))
        files = [folder / name for name in names if not (folder / name).is_dir()]
    if not files:
        raise InputError(f"'{folder}' cannot be read: its card names '{pattern}', which is not there")
    for file in files:
        check_within(folder, file)
        if kind_of(file) is None:
            raise InputError(
                f"'{folder}' cannot be read: its card names '{file.name}', which is of no kind that can be read",
                fix=f"kinds are: {kinds()}",
            )
    return files


def _directory(folder: Path, name: str) -> Path:
    path = within(folder, name)
    if not path.is_dir():
        raise InputError(f"'{folder}' has no folder '{name}'")
    return path
