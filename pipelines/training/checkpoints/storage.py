"""Checkpoints on disk: written aside by all ranks, synced and renamed, verified before use, the last few kept.

They lie in a hidden folder of the directory in which a run is being made. Tensors are safetensors and the rest is
JSON, so that nothing in a checkpoint can run code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from data_registry.core.errors import ArtifactError, InputError, OgpsaError
from data_registry.core.manifest import MANIFEST, FileRecord, InputRecord, compare_file, hash_directory
from pipelines.core.environment import package_versions, tool_version
from pipelines.core.job import gather, is_main, on_main, world_size
from pipelines.core.placing import put_in_place, sync_file, write_text_durably

logger = logging.getLogger(__name__)

FOLDER = ".checkpoints"
SCHEMA_VERSION = 2
_PREFIX = "checkpoint-"
_PARTIAL = ".partial"
# Files that loaders of other tools read without asking, and that can run code when read.
_PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}


class RunRecord(BaseModel):
    """The run that a checkpoint belongs to.

    Attributes:
        identity: the digest of the run's options.
        inputs: records of model, data and basis.
        samples_per_step: the number of samples in one optimizer step, over all ranks.
    """

    model_config = ConfigDict(extra="forbid")
    identity: str
    inputs: list[InputRecord]
    samples_per_step: int


class CheckpointManifest(BaseModel):
    """The description of a checkpoint with the hashes of its files; it is written last."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int = SCHEMA_VERSION
    step: int
    world_size: int
    run: RunRecord
    tool_version: str
    packages: dict[str, str]
    written: str
    files: dict[str, FileRecord]


def write_checkpoint(run_directory: Path, step: int, run: RunRecord, write: Callable[[Path], Sequence[Path]]) -> Path:
    """Write a checkpoint. Collective.

    Args:
        run_directory: the directory in which the run is being made.
        step: the number of optimizer steps done.
        run: the record of the run that it belongs to.
        write: writes this rank's files into a directory and returns them.

    Raises:
        InputError: some rank could not write; raised on all ranks.
    """
    final = run_directory / FOLDER / name_of(step)
    aside = final.with_name(f".{final.name}{_PARTIAL}")
    on_main(lambda: _make_empty(aside))
    records: dict[str, FileRecord] = {}
    failure: OgpsaError | None = None
    try:
        with _storage_errors(final):
            files = write(aside)
            for path in files:
                sync_file(path)
            records = hash_directory(aside, files)
    except OgpsaError as error:
        failure = error
    outcomes = gather((failure, records))
    failures = [error for error, _ in outcomes if error is not None]
    if failures:
        if is_main():
            shutil.rmtree(aside, ignore_errors=True)
        raise failures[0]
    manifest = CheckpointManifest(
        step=step,
        world_size=world_size(),
        run=run,
        tool_version=tool_version(),
        packages=package_versions(),
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        files={name: record for _, part in outcomes for name, record in part.items()},
    )
    on_main(lambda: _put_in_place(aside, final, manifest))
    return final


def name_of(step: int) -> str:
    """The name of the checkpoint that is written after ``step`` steps."""
    return f"{_PREFIX}{step}"


def _make_empty(directory: Path) -> None:
    with _storage_errors(directory):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)


def _put_in_place(aside: Path, final: Path, manifest: CheckpointManifest) -> None:
    with _storage_errors(final):
        write_text_durably(aside / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        put_in_place(aside, final, replace=final.exists())


@contextlib.contextmanager
def _storage_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            f"{place.name.strip('.')} could not be written: {reason}",
            where=str(place.parent),
            fix="free some space; the same command then goes on from the last checkpoint that was written",
        ) from error


def keep_last(run_directory: Path, keep: int) -> None:
    """Remove all checkpoints but the last ``keep``; rank zero's work."""
    for path in _found(run_directory)[keep:]:
        # Rename it first: a half removed checkpoint must not look like a damaged one.
        doomed = path.with_name(f".{path.name}{_PARTIAL}")
        with contextlib.suppress(OSError):
            os.rename(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def has_checkpoint(run_directory: Path) -> bool:
    """Whether there is a checkpoint to resume from, whole or damaged."""
    return bool(_found(run_directory))


def _found(run_directory: Path) -> list[Path]:
    """Finished checkpoints, the newest first."""
    names = (run_directory / FOLDER).glob(f"{_PREFIX}*")
    numbered = [(int(path.name.removeprefix(_PREFIX)), path) for path in names if path.name[len(_PREFIX) :].isdigit()]
    return [path for _, path in sorted(numbered, reverse=True)]


def newest_checkpoint(run_directory: Path, run: RunRecord) -> tuple[Path, CheckpointManifest] | None:
    """The newest checkpoint that verifies; damaged and unfinished ones are logged and skipped. Rank zero's work.

    Args:
        run_directory: the directory in which the run is being made.
        run: the run that a checkpoint must belong to; ``samples_per_step`` may differ.

    Raises:
        ArtifactError: a checkpoint was made from other inputs, or holds a pickle that ogpsa did not write.
    """
    for path in (run_directory / FOLDER).glob(f".{_PREFIX}*{_PARTIAL}"):
        logger.info("%s was not finished and is not used", path.name.strip(".").removesuffix(_PARTIAL))
        shutil.rmtree(path, ignore_errors=True)
    for path in _found(run_directory):
        _refuse_pickles(path)
        manifest, problem = _verified(path)
        if manifest is not None:
            _check_run(path, manifest, run)
            return path, manifest
        logger.warning("%s is damaged and not used: %s", path.name, problem)
    return None


def _refuse_pickles(path: Path) -> None:
    foreign = sorted(file for file in path.rglob("*") if file.suffix in _PICKLES)
    if foreign:
        raise ArtifactError(
            f"{path.name} holds {foreign[0].name}: a pickle, which ogpsa never writes there and which could run code",
            where=str(foreign[0]),
            fix="find out who put it there; --no-resume starts the run over",
        )


def _verified(path: Path) -> tuple[CheckpointManifest | None, str]:
    try:
        manifest = CheckpointManifest.model_validate_json((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, f"it has no {MANIFEST}"
    except (OSError, ValueError, ValidationError) as error:
        return None, f"its {MANIFEST} cannot be read: {str(error).splitlines()[0]}"
    if manifest.schema_version != SCHEMA_VERSION:
        return None, f"it was written by another ogpsa ({manifest.tool_version})"
    for name, record in manifest.files.items():
        problem = compare_file(path / name, name, record, hashes=True)
        if problem:
            return None, problem
    extra = {file.name for file in path.iterdir()} - set(manifest.files) - {MANIFEST}
    return (None, f"it was written without {sorted(extra)[0]}") if extra else (manifest, "")


def _check_run(path: Path, manifest: CheckpointManifest, run: RunRecord) -> None:
    before, now = (
        [(record.role, record.fingerprint) for record in records] for records in (manifest.run.inputs, run.inputs)
    )
    roles = dict.fromkeys(role for role, _ in [*before, *now])
    differing = [role for role in roles if [r for r in before if r[0] == role] != [r for r in now if r[0] == role]]
    if manifest.run.identity != run.identity:
        differing.append("options")
    if differing:
        raise ArtifactError(
            f"an unfinished run lies here that was begun with another {' and another '.join(differing)}",
            where=str(path),
            fix="--no-resume starts over; or give the inputs that it was begun with, and it goes on",
        )


def remove_all(run_directory: Path) -> None:
    """Remove the checkpoints of a finished run; rank zero's work."""
    shutil.rmtree(run_directory / FOLDER, ignore_errors=True)
