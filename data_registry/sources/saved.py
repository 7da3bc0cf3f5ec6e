"""Folders that ``datasets.save_to_disk`` wrote, and data sets that ``prepare-data`` made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_registry.core.errors import ConfigError, InputError
from data_registry.core.json_text import decode
from data_registry.core.manifest import InputRecord, Manifest, as_input
from data_registry.core.regular_files import open_regular
from data_registry.prepared import load_prepared
from data_registry.sources.base import Chunk, Source
from data_registry.sources.files import Files
from data_registry.sources.folder import within
from data_registry.sources.splits import choose_split
from data_registry.sources.tables import dataset_batches, numbered

STATE, SPLITS_FILE = "state.json", "dataset_dict.json"


class SavedSource(Files):
    """A folder that ``datasets.save_to_disk`` wrote: a data set, or several splits of one.

    Its files are read one batch at a time, as any Arrow file is. Those that the folder's own list names outside of the
    folder are refused.

    Raises:
        InputError: it cannot be read.
        ConfigError: it has splits and none, or another, was named.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        root = path
        if (path / SPLITS_FILE).is_file():
            splits = _read(path / SPLITS_FILE).get("splits")
            if not isinstance(splits, list) or not splits or not all(isinstance(name, str) for name in splits):
                raise _damaged(path, f"{SPLITS_FILE} names no splits")
            root = within(path, choose_split(split, splits, str(path)))
        elif split is not None:
            raise ConfigError(f"'{path}' has no splits, so that the split '{split}' cannot be read")
        state = _read(root / STATE)
        try:
            files = [within(root, entry["filename"]) for entry in state["_data_files"]]
        except (KeyError, TypeError) as error:
            raise _damaged(root, f"{STATE} does not name its files") from error
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise InputError(
                f"'{root}' was saved with a selection of rows that is not read",
                fix="save it again with a newer version of datasets",
            )
        if not files:
            raise _damaged(root, f"{STATE} names no files")
        for file in files:
            if not file.is_file():
                raise _damaged(root, f"its file '{file.name}' is missing")
        super().__init__(root, files, whole_folder=True)


class PreparedSource(Source):
    """A data set that ``prepare-data`` made, to be selected from once more.

    Raises:
        ArtifactError: it does not verify, or is an artifact of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._manifest: Manifest
        self._rows, self._manifest = load_prepared(path)
        self.num_rows = len(self._rows)
        self.task_hint = str(self._manifest.summary["task"])
        self.layout_hint = "messages" if self.task_hint == "sft" else "preference"

    def chunks(self) -> Iterator[Chunk]:
        """See the base class."""
        yield from numbered(dataset_batches(self._rows), self.name)

    def inputs(self) -> list[InputRecord]:
        """See the base class."""
        return [as_input("source", self._path, self._manifest)]


def _read(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as stream:
            value = decode(stream.read())
    except (OSError, ValueError) as error:
        raise _damaged(path.parent, f"{path.name}: {error}") from error
    if not isinstance(value, dict):
        raise _damaged(path.parent, f"{path.name} holds no object")
    return value


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(f"the Arrow folder is damaged: {what}", where=str(folder))
