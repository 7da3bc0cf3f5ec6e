"""Artifacts: directories with a manifest, written aside, synced and renamed into place, verified when read.

A directory without ``manifest.json`` is not an artifact. The manifest is written last, so that a directory which has
one is complete.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_registry.core.errors import ArtifactError, InputError, OgpsaError
from data_registry.core.manifest import (
    MANIFEST,
    InputRecord,
    Manifest,
    fingerprint_of,
    hash_directory,
    is_artifact,
    read_manifest,
    verify,
)
from data_registry.core.redaction import hide, hide_arguments, hide_values
from data_registry.core.visible import is_text
from pipelines.core import environment, unfinished
from pipelines.core.config import CommandConfig
from pipelines.core.placing import discard, put_in_place, sync_directory, sync_file, write_text_durably

# The workers of a run that was killed hold its lock until they notice.
LOCK_PATIENCE_S = 10.0

# A full disk, a quota, a limit, a failing device: these concern writing, whatever file the error names.
_STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
# These concern writing only where they name a file in the artifact's own place.
_PLACE_ERRORS = {errno.EACCES, errno.EPERM, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG}
# The words of libraries that write from Rust or C++ and do not raise OSError.
_STORAGE_WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "Read-only file system")


def find_finished(
    target: Path, kind: str, config: CommandConfig, inputs: Sequence[InputRecord], *, overwrite: bool
) -> Manifest | None:
    """The finished artifact at ``target`` if this command would make the same one, else None.

    Raises:
        ArtifactError: another artifact lies there and ``overwrite`` is off, or what lies there is not an artifact.
    """
    if not target.exists():
        return None
    if not is_artifact(target):
        if target.is_dir() and not any(target.iterdir()):
            return None
        raise ArtifactError(
            f"'{target}' exists and is not an artifact of ogpsa; it will not be touched",
            fix="choose another --out",
        )
    manifest = read_manifest(target)
    same = (
        manifest.kind == kind
        and not config.differences(manifest.config)
        and not _differs_unseen(manifest, config)
        and [(record.role, record.fingerprint) for record in manifest.inputs]
        == [(record.role, record.fingerprint) for record in inputs]
        and not verify(target, manifest, hashes=False)
    )
    if same and not overwrite:
        return manifest
    if not overwrite:
        differing = _differences(manifest, kind, config, inputs)
        raise ArtifactError(
            f"'{target}' holds a finished {manifest.kind} made with other settings: {differing}",
            fix="choose another --out, or replace it with --overwrite",
        )
    return None


def _differences(manifest: Manifest, kind: str, config: CommandConfig, inputs: Sequence[InputRecord]) -> str:
    if manifest.kind != kind:
        return f"it is a {manifest.kind}, not a {kind}"
    keys = config.differences(manifest.config)
    then, now = ([(record.role, record.fingerprint) for record in records] for records in (manifest.inputs, inputs))
    roles = dict.fromkeys(role for role, _ in [*now, *then])
    keys += [
        role for role in roles if [old for old in then if old[0] == role] != [new for new in now if new[0] == role]
    ]
    keys += ["a value that is hidden in its record"] if _differs_unseen(manifest, config) else []
    return ", ".join(dict.fromkeys(keys)) or "its files do not verify"


def _differs_unseen(manifest: Manifest, config: CommandConfig) -> bool:
    """Whether a record hides a value that may be more than a token, and the digest tells that it was another one."""
    return config.hides_settings() and manifest.identity != config.identity_hash()


def partial_path(target: Path, config: CommandConfig) -> Path:
    """The directory beside ``target`` where it is made; equal configurations share it, so that work can go on."""
    target = Path(os.path.abspath(target))
    return target.with_name(f".{target.name}.partial-{config.identity_hash()[:8]}")


class ArtifactWriter:
    """The directory in which an artifact is being made, and the figures for its manifest.

    Attributes:
        path: the directory to write files into.
        inputs: records of the inputs used; may be extended while writing.
        summary: figures for people; may be filled while writing.
    """

    def __init__(self, path: Path, inputs: Sequence[InputRecord]) -> None:
        self.path = path
        self.inputs = list(inputs)
        self.summary: dict[str, Any] = {}


@contextlib.contextmanager
def write_artifact(
    target: Path,
    kind: str,
    config: CommandConfig,
    inputs: Sequence[InputRecord],
    *,
    overwrite: bool = False,
    keep_partial: bool = False,
) -> Iterator[ArtifactWriter]:
    """Make an artifact: yields a writer for a directory aside; on success it is finished and renamed to ``target``.

    Args:
        target: where the artifact will lie.
        kind: the kind of artifact, such as ``"dataset"``.
        config: the command's resolved configuration.
        inputs: records of the inputs that it is made from.
        overwrite: whether to replace what lies at ``target`` (only ever an artifact; moved away first, removed last).
        keep_partial: whether unfinished work stays when interrupted, so that the same command goes on from it.

    Raises:
        InputError: the directory cannot be written, or another process is writing it.
    """
    target = Path(os.path.abspath(target))
    partial = partial_path(target, config)
    started, clock = datetime.now(UTC), time.monotonic()
    lock = _begin(target, partial, keep_partial=keep_partial)
    writer = ArtifactWriter(partial, inputs)
    try:
        yield writer
        manifest = Manifest(
            kind=kind,
            tool_version=environment.tool_version(),
            command=command_line(),
            config=config.recorded(),
            identity=config.identity_hash(),
            inputs=[record.model_copy(update={"path": _recorded(record.path)}) for record in writer.inputs],
            files=hash_directory(partial),
            environment=environment.describe(),
            started=started.isoformat(timespec="seconds"),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            duration_s=round(time.monotonic() - clock, 3),
            summary=hide_values(writer.summary),
        )
        manifest.fingerprint = fingerprint_of(manifest.files)
        _sync_tree(partial)
        write_text_durably(partial / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        put_in_place(partial, target, replace=overwrite and is_artifact(target))
    except BaseException as error:
        if not keep_partial or not any(path.is_file() for path in partial.rglob("*")):
            discard(partial)
        else:
            unfinished.note_end(partial, error)
        # An error that is made for the user already says more.
        reason = None if isinstance(error, OgpsaError) else _storage_problem(error, target.parent)
        if reason is None:
            raise
        raise InputError(
            f"writing '{target}' failed: {reason}", fix="free some space, or choose another --out"
        ) from error
    finally:
        os.close(lock)


def _begin(target: Path, partial: Path, *, keep_partial: bool) -> int:
    """Make the directory aside, for this process alone; returns the descriptor that holds the lock on it."""
    if not is_text(target):
        raise InputError(
            "the place of an artifact must have a name in UTF-8: some libraries take no other",
            where=str(target),
            fix="choose another --out, or another working directory",
        )
    made = _first_missing(partial.parent)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if made is not None:
            # The parent directories were made in vain.
            with contextlib.suppress(OSError):
                made.rmdir()
        raise InputError(f"cannot write to '{target.parent}': {error.strerror}", fix="choose another --out") from error
    if not _lock(lock):
        os.close(lock)
        raise InputError(
            f"another process is making '{target}' at this moment", where=str(partial), fix="wait for it, or stop it"
        )
    unfinished.note_begin(partial)
    # Finished work is not continued: it was never put in its place, or it is what a new artifact replaced.
    finished = is_artifact(partial)
    for path in [partial / MANIFEST, *partial.iterdir()] if finished else list(partial.iterdir()):
        if not keep_partial or (finished and not path.name.startswith(".")):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    return lock


def _lock(descriptor: int) -> bool:
    """Lock a directory for this process, waiting a little if need be; returns whether that was possible."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        except OSError:
            # Some network file systems have no locks; users must then not run the same command twice at a time.
            return True


def _first_missing(directory: Path) -> Path | None:
    missing = None
    while not directory.exists() and directory != directory.parent:
        missing, directory = directory, directory.parent
    return missing


def _storage_problem(error: BaseException | None, place: Path) -> str | None:
    """Why the storage refused to write, if an error or one of its causes says that it did; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            concerns_place = isinstance(error.filename, str) and Path(os.path.abspath(error.filename)).is_relative_to(
                place
            )
            if error.errno in _STORAGE_ERRORS or (error.errno in _PLACE_ERRORS and concerns_place):
                return os.strerror(error.errno).lower() + (f" ({error.filename})" if error.filename else "")
        words = next((words for words in _STORAGE_WORDS if words in str(error)), None)
        if words is not None:
            return words.lower()
        error = error.__cause__
    return None


_recorded_command: list[str] | None = None


def record_command(arguments: Sequence[str]) -> None:
    """Record the arguments typed after ``ogpsa``, for the manifests that this process writes from now on."""
    global _recorded_command
    _recorded_command = list(arguments)


def command_line() -> list[str]:
    """The command as the user typed it, for manifests and model cards; tokens and passwords are hidden."""
    typed = hide_arguments(sys.argv[1:] if _recorded_command is None else _recorded_command)
    return ["ogpsa", *map(_recorded, typed)]


def _recorded(text: str) -> str:
    """A text as a manifest can hold it: names of files need not be UTF-8."""
    return hide(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _sync_tree(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            sync_file(path)
    for path in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        sync_directory(path)
