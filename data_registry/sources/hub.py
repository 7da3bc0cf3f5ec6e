"""Data sets on the hub: read with ``datasets.load_dataset``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError, first_line
from data_registry.core.manifest import InputRecord
from data_registry.hub import network
from data_registry.hub.errors import Wanted, explain, is_gated
from data_registry.sources.base import Chunk, Source, chunked
from data_registry.sources.files import FileSource
from data_registry.sources.splits import choose_split
from data_registry.sources.tables import dataset_batches, numbered

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)


class HubSource(Source):
    """A data set of the hub at the commit that its revision stands for.

    What was fetched once is found again without a network.

    Args:
        repository: ``owner/name`` (or ``name``).
        subset: the data set's configuration, as the hub calls it.
        data_dir: a folder within it.
        split: the split; may be left out where there is one.
        revision: branch, tag or commit.
        streaming: read over the network as needed instead of fetching it whole first.

    Raises:
        InputError: it is not to be had; with what to do.
    """

    def __init__(
        self,
        repository: str,
        *,
        subset: str | None = None,
        data_dir: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        streaming: bool = False,
    ) -> None:
        self.name = repository
        self._split = split
        self._streaming = streaming
        self._wanted = Wanted(repository, "data set", revision)
        # One small file is enough to learn the commit.
        self._commit = _fetched(self._wanted, "README.md", ".gitattributes").name
        self._options = {"name": subset, "data_dir": data_dir, "revision": self._commit}

    def inputs(self) -> list[InputRecord]:
        """See the base class."""
        return [InputRecord(role="source", path=self.name, kind="hub", fingerprint=self._commit)]

    def chunks(self) -> Iterator[Chunk]:
        """See the base class."""
        import datasets

        rows = self._rows
        if not isinstance(rows, datasets.IterableDataset):
            yield from numbered(dataset_batches(rows), self.name)
            return
        iterator = chunked(enumerate(rows, start=1), self.name)
        while True:
            with _readable(self._wanted):
                chunk = next(iterator, None)
            if chunk is None:
                return
            yield chunk

    @cached_property
    def _rows(self) -> Any:
        import datasets

        with _readable(self._wanted):
            split = self._split
            # What it says of its cache is said by us, where it matters.
            datasets.logging.set_verbosity_error()
            if split is None:
                builder = datasets.load_dataset_builder(self.name, **self._options)
                split = choose_split(None, list(builder.config.data_files or builder.info.splits or ()), self.name)
            if not self._streaming:
                logger.info("fetching %s from the hub, unless it is here already", self.name)
            rows = datasets.load_dataset(self.name, split=split, streaming=self._streaming, **self._options)
        if isinstance(rows, datasets.Dataset):
            self.num_rows = len(rows)
            self._check_commit(rows)
        return rows

    def _check_commit(self, rows: datasets.Dataset) -> None:
        """Without the hub the library takes the data that it prepared last, which may be of another commit."""
        found = {Path(file["filename"]).parent.name for file in rows.cache_files}
        if found and self._commit not in found:
            raise InputError(
                f"the cache has '{self.name}' of commit {sorted(found)[0]}, not of {self._commit}, and the hub cannot "
                "be reached",
                fix=f"fetch it where there is a network:  {self._wanted.command}; or name that commit as its revision",
            )


class HubFolderSource(Source):
    """The files in a folder of a data set on the hub, read like those of a folder here.

    ``datasets`` would prepare them too, but not find them again without a network: it looks for folders under other
    names than it gives them.

    Args:
        repository: ``owner/name``.
        folder: the folder of the repository that is read.
        split: which of the splits to read that the names of its files tell.
        revision: branch, tag or commit.

    Raises:
        InputError: it is not to be had; with what to do.
        ConfigError: it has several splits and none, or another, was named.
    """

    def __init__(self, repository: str, folder: str, *, split: str | None, revision: str | None) -> None:
        self.name = f"{repository}/{folder}"
        self._repository = repository
        snapshot = _fetched(Wanted(repository, "data set", revision), f"{folder}/*")
        self._commit = snapshot.name
        if not (snapshot / folder).is_dir():
            raise InputError(f"the data set '{repository}' on the hub has no folder '{folder}'")
        self._files = FileSource(snapshot / folder, split)

    def inputs(self) -> list[InputRecord]:
        """See the base class."""
        return [InputRecord(role="source", path=self._repository, kind="hub", fingerprint=self._commit)]

    def chunks(self) -> Iterator[Chunk]:
        """See the base class."""
        return self._files.chunks()


class _readable:  # noqa: N801 - reads as a statement
    """Turns what the libraries raise while fetching and reading into an ``InputError``."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from datasets.exceptions import DatasetsError
        from huggingface_hub.errors import HfHubHTTPError

        if error is not None and (isinstance(error, HfHubHTTPError | ConnectionError) or is_gated(error)):
            raise explain(error, self._wanted) from error
        # ValueError: no such configuration or split; RuntimeError: the repository wants to run a script of its own.
        if isinstance(error, OSError | ValueError | RuntimeError | DatasetsError):
            raise InputError(
                f"'{self._wanted.name}' cannot be read: {first_line(error)}",
                fix="see --subset and --source-split; without a network, fetch it beforehand on a machine that has one",
            ) from error


def _fetched(wanted: Wanted, *patterns: str) -> Path:
    """The folder of a repository in the cache, which is named after its commit, with the files that match."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    network.settle()
    try:
        folder = snapshot_download(
            wanted.name, repo_type="dataset", revision=wanted.revision, allow_patterns=list(patterns)
        )
    except (HFValidationError, OSError) as error:  # the hub's refusals are OSErrors
        raise explain(error, wanted) from error
    return Path(folder)
