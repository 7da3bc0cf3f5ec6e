"""Finds out which model a reference means: a directory, a hub id or a run of ogpsa; fetches its files."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core.documents import suggest
from data_registry.core.errors import ArtifactError, InputError
from data_registry.core.manifest import (
    InputRecord,
    Manifest,
    as_input,
    fingerprint_of,
    hash_directory,
    is_artifact,
    open_artifact,
)
from pipelines.models import hub
from pipelines.models.files import (
    ADAPTER_CONFIG,
    CONFIG,
    TOKENIZER_FILES,
    check_weight_files,
    determining_files,
    has_weights,
    read_json,
)

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)

MODEL_FOLDER = "model"
"""Where a run keeps its final model."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        reference: the reference as the user gave it.
        path_or_id: the name that transformers takes: the directory with the weights (``model/`` inside a run), or the
            hub id.
        directory: the local directory with its configuration and tokenizer; for a hub model, a folder of the cache.
        revision: the commit that a hub id resolved to; None for directories.
        base: the model that an adapter adapts; None for a full model.
        run: the directory and manifest of the run of ogpsa that made the model; None for other models.
    """

    reference: str
    path_or_id: str
    directory: Path
    revision: str | None = None
    base: ModelSource | None = None
    run: tuple[Path, Manifest] | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether the weights are a LoRA adapter on ``base``."""
        return self.base is not None

    @property
    def is_local(self) -> bool:
        """Whether the model lies in a directory of this machine rather than on the hub."""
        return self.revision is None

    @property
    def name(self) -> str:
        """A short name for tables: the last part of the reference."""
        return Path(self.reference).resolve().name if self.is_local else self.reference.rsplit("/", 1)[-1]

    @property
    def tokenizer_source(self) -> ModelSource:
        """The source of the model's tokenizer: itself, or its base if this is an adapter without a tokenizer."""
        if self.base is None or _has_tokenizer(self):
            return self
        return self.base.tokenizer_source

    def fingerprint(self) -> str:
        """Hash of weights, configuration, tokenizer and template; for a hub model, its commit.

        It does not depend on where the directory lies. An adapter's fingerprint includes that of its base. It is
        computed once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        files = determining_files(self.directory)
        own = self.revision or fingerprint_of(hash_directory(self.directory, files))
        return own if self.base is None else f"{own}+{self.base.fingerprint()}"

    def input_record(self, role: str = "model") -> InputRecord:
        """The record of this model for the manifest of an artifact that is made from it."""
        if self.run is not None:
            return as_input(role, *self.run)
        return InputRecord(role=role, path=self.reference, kind="model", fingerprint=self.fingerprint())


def resolve_model(reference: str, *, revision: str | None = None, base: ModelSource | None = None) -> ModelSource:
    """Find out what a model reference means, without loading weights.

    Args:
        reference: a directory in Hugging Face format, a run of ogpsa (which stands for its final model), or a hub id.
            A path that exists on disk is never looked for on the hub.
        revision: the branch, tag or commit of a hub model.
        base: the model that the reference adapts if it is an adapter; by default the one that the adapter's
            configuration names.

    Raises:
        InputError: there is no such model, or it has no configuration.
        ArtifactError: the reference is an artifact of another kind, or its verification fails.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        raise InputError(f"'{reference}' is a file, where a model is needed", fix=f"name its directory:  {path.parent}")
    if not path.exists():
        return _on_hub(reference, revision, base)
    if revision is not None:
        raise InputError(f"--revision {revision} is for models on the hub; '{reference}' is a directory")
    if not is_artifact(path):
        return _in_directory(reference, path, run=None, base=base)
    manifest = open_artifact(path, ("run", "model"))
    folder = path / MODEL_FOLDER
    return _in_directory(reference, folder if folder.is_dir() else path, run=(path, manifest), base=base)


# --- Finding -----------------------------------------------------------------------------------------------------


def _in_directory(
    reference: str, directory: Path, run: tuple[Path, Manifest] | None, base: ModelSource | None
) -> ModelSource:
    if (directory / ADAPTER_CONFIG).is_file():
        base = base or _adapter_base(directory, run)
        return ModelSource(reference, str(directory), directory, base=base, run=run)
    if not (directory / CONFIG).is_file():
        raise InputError(
            f"'{reference}' is not a model: it has no {CONFIG}",
            where=str(directory),
            fix="name a directory in Hugging Face format (save_pretrained), or a finished run of ogpsa",
        )
    return ModelSource(reference, str(directory), directory, run=run)


def _adapter_base(directory: Path, run: tuple[Path, Manifest] | None) -> ModelSource:
    config = read_json(directory / ADAPTER_CONFIG)
    reference = config.get("base_model_name_or_path")
    if not isinstance(reference, str) or not reference:
        raise InputError(
            f"the adapter '{directory}' does not say which model it adapts",
            where=f"base_model_name_or_path in {directory / ADAPTER_CONFIG}",
            fix="write the base model's directory or hub id there",
        )
    recorded = [record for record in run[1].inputs if record.role == "model"] if run is not None else []
    if not Path(reference).exists():
        # Trained elsewhere, or from another working directory: the run's manifest has the reference that the user gave.
        reference = next((record.path for record in recorded if Path(record.path).exists()), reference)
    try:
        base = resolve_model(reference, revision=None if Path(reference).exists() else config.get("revision"))
    except InputError as error:
        raise InputError(
            f"the base model of the adapter '{directory}' cannot be used: {error.what}",
            where=f"base_model_name_or_path in {directory / ADAPTER_CONFIG}",
            fix="put the base model there, or correct the path",
        ) from error
    found = base.input_record()
    if any(record.kind == found.kind and record.fingerprint != found.fingerprint for record in recorded):
        raise ArtifactError(
            f"the base model of the adapter '{directory}' is not the one that it was trained on",
            where=f"'{reference}' has changed since",
            fix="restore that model, or train the adapter again",
        )
    return base


def _on_hub(reference: str, revision: str | None, base: ModelSource | None) -> ModelSource:
    hint = _similar(Path(reference))
    if not _HUB_ID.fullmatch(reference):
        raise InputError(f"the model directory '{reference}' does not exist{hint}")
    logger.info("looking for %s on the hub", reference)
    folder = hub.fetch(reference, revision, hub.SMALL_FILES, hint=hint)
    commit = folder.name
    if (folder / ADAPTER_CONFIG).is_file():
        return ModelSource(reference, reference, folder, revision=commit, base=base or _adapter_base(folder, None))
    if not (folder / CONFIG).is_file():
        raise InputError(f"'{reference}' on the hub is not a model for transformers: it has no {CONFIG}")
    return ModelSource(reference, reference, folder, revision=commit)


def model_directory(source: ModelSource) -> Path:
    """The directory with the model's files; the weights of a hub model are fetched first.

    Raises:
        InputError: the weights are not in the cache, and the hub cannot be reached.
    """
    if source.revision is None or has_weights(source.directory):
        return source.directory
    return hub.fetch(source.path_or_id, source.revision, hub.WEIGHT_FILES)


def fetch_weights(source: ModelSource) -> None:
    """Fetch the files that :func:`load_model` needs from the hub, also for an adapter's base; skip directories.

    Raises:
        InputError: the weights are not in the cache, and the hub cannot be reached.
    """
    directory = model_directory(source)
    if source.base is not None:
        fetch_weights(source.base)
    check_weight_files(directory)


def _similar(path: Path) -> str:
    parent = path.parent
    names = [child.name for child in parent.iterdir() if child.is_dir()] if parent.is_dir() else []
    return suggest(path.name, names)


def _has_tokenizer(source: ModelSource) -> bool:
    return any((source.directory / name).is_file() for name in TOKENIZER_FILES)
