"""Finds out which model a reference means: a directory, a hub id or a run of ogpsa; fetches its files."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from data_registry.core.documents import suggest
from data_registry.core.errors import ArtifactError, InputError
from data_registry.core.manifest import (
    MANIFEST,
    InputRecord,
    Manifest,
    as_input,
    fingerprint_of,
    hash_directory,
    is_artifact,
    open_artifact,
    read_manifest,
)
from pipelines.models import hub
from pipelines.models.adapter_config import named_base, read_adapter_config
from pipelines.models.files import (
    ADAPTER_CONFIG,
    CONFIG,
    TOKENIZER_FILES,
    check_weight_files,
    determining_files,
    has_weights,
    weight_names,
)
from pipelines.models.watching import FileStates, first_changed, states_of

logger = logging.getLogger(__name__)

MODEL_FOLDER = "model"
"""Where a run keeps its final model."""

BASE_ROLE = "base"
"""The role of the model that an adapter adapts, in the manifest of what was made from the adapter."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        reference: the reference as the user gave it.
        path_or_id: the name that transformers takes: the absolute path of the directory with the weights (``model/``
            inside a run), so that what is made from the model finds it from anywhere; or the hub id.
        directory: the local directory with its configuration and tokenizer; for a hub model, a folder of the cache.
        revision: the commit that a hub id resolved to; None for directories.
        base: the model that an adapter adapts; None for a full model.
        run: the directory and manifest of the run of ogpsa that made the model; None for other models.
        seen: what the files of a local model were when it was found; None for models of the hub, whose commit says it.
    """

    reference: str
    path_or_id: str
    directory: Path
    revision: str | None = None
    base: ModelSource | None = None
    run: tuple[Path, Manifest] | None = None
    seen: FileStates | None = field(default=None, compare=False, repr=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the files as they are here: another process may be on a machine with copies of its own."""
        self.__dict__.update(state)
        if self.seen is not None:
            self.__dict__["seen"] = _states(self.directory, self.run[0] if self.run is not None else None)

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
        own = self.revision or self._own_fingerprint()
        return own if self.base is None else f"{own}+{self.base.fingerprint()}"

    def _own_fingerprint(self) -> str:
        found = hash_directory(self.directory, determining_files(self.directory))
        self.check_unchanged()
        if self.run is not None:
            place, manifest = self.run
            for name, record in found.items():
                known = manifest.files.get((self.directory / name).relative_to(place).as_posix())
                if known is not None and known.sha256 != record.sha256:
                    raise ArtifactError(
                        f"'{self.reference}' does not verify: {name} was changed after it was written",
                        where=str(self.directory / name),
                        fix=f"what the run made is gone; look at it with:  ogpsa inspect {place}",
                    )
        return fingerprint_of(found)

    def check_unchanged(self) -> None:
        """Make sure that the model is still the one that was found, so that figures and lineage speak of one model.

        Call this function once everything was read. It compares inodes, sizes and times, and reads nothing.

        Raises:
            ArtifactError: a file of the model, or of its base, was replaced, changed, added or removed meanwhile.
        """
        if self.seen is not None:
            now = _states(self.directory, self.run[0] if self.run is not None else None)
            changed = first_changed(self.seen, now)
            if changed is not None:
                raise ArtifactError(
                    f"the model '{self.reference}' changed while it was being read",
                    where=changed,
                    fix="run the command again once nothing writes there any more",
                )
        if self.base is not None:
            self.base.check_unchanged()

    def input_record(self, role: str = "model") -> InputRecord:
        """The record of this model for the manifest of an artifact that is made from it."""
        if self.run is not None:
            return as_input(role, *self.run)
        path = os.path.abspath(self.path_or_id) if self.is_local else self.reference
        return InputRecord(role=role, path=path, kind="model", fingerprint=self.fingerprint())

    def input_records(self, role: str = "model") -> list[InputRecord]:
        """The records of this model and, if it is an adapter, of the model that it adapts, under the role ``base``."""
        return [self.input_record(role), *([self.base.input_record(BASE_ROLE)] if self.base is not None else [])]


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
    return _resolve(reference, revision, base, ())


# --- Finding -----------------------------------------------------------------------------------------------------


def _resolve(reference: str, revision: str | None, base: ModelSource | None, adapters: tuple[Path, ...]) -> ModelSource:
    """As :func:`resolve_model`; ``adapters`` are those that led here, each by naming the next as its base."""
    path = Path(reference).expanduser()
    if path.is_file():
        raise InputError(f"'{reference}' is a file, where a model is needed", fix=f"name its directory:  {path.parent}")
    if not path.exists():
        return _on_hub(reference, revision, base, adapters)
    if revision is not None:
        raise InputError(f"--revision {revision} is for models on the hub; '{reference}' is a directory")
    path = Path(os.path.abspath(path))
    if not is_artifact(path):
        return _in_directory(reference, path, None, base, adapters, _states(path, None))
    folder = _model_folder(path)
    # The files are noted before the manifest is read: what is noted later could belong to another artifact.
    seen = _states(folder, path)
    manifest = open_artifact(path, ("run", "model"))
    return _in_directory(reference, folder, (path, manifest), base, adapters, seen)


def _model_folder(artifact: Path) -> Path:
    """The directory of an artifact's model: by its manifest, as somebody may have put a folder ``model`` into it."""
    has_folder = any(name.startswith(f"{MODEL_FOLDER}/") for name in read_manifest(artifact).files)
    return artifact / MODEL_FOLDER if has_folder else artifact


def _in_directory(
    reference: str,
    directory: Path,
    run: tuple[Path, Manifest] | None,
    base: ModelSource | None,
    adapters: tuple[Path, ...],
    seen: FileStates,
) -> ModelSource:
    if (directory / ADAPTER_CONFIG).is_file():
        config = read_adapter_config(directory)
        base = base or _adapter_base(config, directory, run, adapters)
        return ModelSource(reference, str(directory), directory, base=base, run=run, seen=seen)
    if not (directory / CONFIG).is_file():
        raise InputError(
            f"'{reference}' is not a model: it has no {CONFIG}",
            where=str(directory),
            fix="name a directory in Hugging Face format (save_pretrained), or a finished run of ogpsa",
        )
    return ModelSource(reference, str(directory), directory, run=run, seen=seen)


def _states(directory: Path, artifact: Path | None) -> FileStates:
    """What a model's files and directories are now; the manifest of the artifact that it belongs to is one of them."""
    made = [] if artifact is None else [artifact, artifact / MANIFEST]
    return states_of([*made, directory, *determining_files(directory)])


def _adapter_base(
    config: dict[str, Any], directory: Path, run: tuple[Path, Manifest] | None, adapters: tuple[Path, ...]
) -> ModelSource:
    named = named_base(config, directory)
    where = f"base_model_name_or_path in {directory / ADAPTER_CONFIG}"
    adapters = (*adapters, directory.resolve())
    reference = named.reference
    recorded = _recorded_bases(run[1]) if run is not None else []
    if not Path(reference).exists():
        # Trained elsewhere, or from another working directory: the run's manifest has the reference that the user gave.
        reference = next((record.path for record in recorded if Path(record.path).exists()), reference)
    folder = Path(reference) / MODEL_FOLDER if is_artifact(Path(reference)) else Path(reference)
    if folder.resolve() in adapters:
        named_as = "itself" if len(adapters) == 1 else "an adapter of its own"
        raise InputError(
            f"the adapter '{directory}' names {named_as} as its base",
            where=where,
            fix="write the directory or hub id of the full model there",
        )
    try:
        base = _resolve(reference, None if Path(reference).exists() else named.revision, None, adapters)
    except InputError as error:
        raise InputError(
            f"the base model of the adapter '{directory}' cannot be used: {error.what}",
            where=where,
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


def _recorded_bases(manifest: Manifest) -> list[InputRecord]:
    """The records of the model that a run's adapter adapts; none where they cannot be told from the adapter's.

    A run that went on from an adapter records that adapter as its model, and the model below as the base. Manifests
    of earlier versions have the adapter alone.
    """
    bases = [record for record in manifest.inputs if record.role == BASE_ROLE]
    if bases:
        return bases
    models = [record for record in manifest.inputs if record.role == "model"]
    return [record for record in models if "+" not in record.fingerprint and not _is_adapter_run(record)]


def _is_adapter_run(record: InputRecord) -> bool:
    return record.kind != "model" and (Path(record.path) / MODEL_FOLDER / ADAPTER_CONFIG).is_file()


def _on_hub(reference: str, revision: str | None, base: ModelSource | None, adapters: tuple[Path, ...]) -> ModelSource:
    hint = _similar(Path(reference))
    if not _HUB_ID.fullmatch(reference):
        raise InputError(f"the model directory '{reference}' does not exist{hint}")
    logger.info("looking for %s on the hub", reference)
    folder = hub.fetch(reference, revision, hub.SMALL_FILES, hint=hint)
    commit = folder.name
    if (folder / ADAPTER_CONFIG).is_file():
        if folder.resolve() in adapters:
            raise InputError(f"the adapter '{reference}' names itself as its base", where=str(folder / ADAPTER_CONFIG))
        base = base or _adapter_base(read_adapter_config(folder), folder, None, adapters)
        return ModelSource(reference, reference, folder, revision=commit, base=base)
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
    logger.info("fetching the weights of %s from the hub, unless they are here already", source.path_or_id)
    return hub.fetch(source.path_or_id, source.revision, weight_names(source.directory))


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
