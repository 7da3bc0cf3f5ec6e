"""Artifacts: directories with a manifest, written aside, synced and renamed into place, verified when read.

A directory without ``manifest.json`` is not an artifact. The manifest is written last, so that a directory which has
one is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
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
from pipelines.core import environment, unfinished
from pipelines.core.aside import aside_of
from pipelines.core.claiming import claim
from pipelines.core.config import CommandConfig
from pipelines.core.place import is_free, place_of, refuse_own_inputs
from pipelines.core.placing import discard, put_in_place, sync_directory, sync_file, write_text_durably

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
        InputError: what lies there cannot be looked at, or is itself an input, which would be lost.
    """
    try:
        is_there = target.exists()
    except OSError as error:
        raise InputError(
            f"'{target}' cannot be looked at: {(error.strerror or str(error)).lower()}", fix="choose another --out"
        ) from error
    if not is_there:
        return None
    if not is_artifact(target):
        if is_free(place_of(target)):
            return None
        raise ArtifactError(
            f"'{target}' exists and is not an artifact of ogpsa; it will not be touched",
            fix="choose another --out",
        )
    manifest = read_manifest(target)
    same = _is_wanted(target, manifest, kind, config, inputs)
    if same and not overwrite:
        return manifest
    if not overwrite:
        differing = _differences(manifest, kind, config, inputs)
        raise ArtifactError(
            f"'{target}' holds a finished {manifest.kind} made with other settings: {differing}",
            fix="choose another --out, or replace it with --overwrite",
        )
    refuse_own_inputs(target, inputs)
    return None


def _is_wanted(path: Path, manifest: Manifest, kind: str, config: CommandConfig, inputs: Sequence[InputRecord]) -> bool:
    """Whether an artifact is what a command would make, and its files are there."""
    return (
        manifest.kind == kind
        and not config.differences(manifest.config)
        and not _differs_unseen(manifest, config)
        and [(record.role, record.fingerprint) for record in manifest.inputs]
        == [(record.role, record.fingerprint) for record in inputs]
        and not verify(path, manifest, hashes=False)
    )


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
    return aside_of(place_of(target), "partial", config.identity_hash()[:8])


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


class AlreadyMade(Exception):  # noqa: N818 - that an artifact is there is no error
    """The artifact was made by another process while this one waited, or lay finished aside and is now in its place.

    Attributes:
        manifest: the artifact's manifest.
    """

    def __init__(self, manifest: Manifest) -> None:
        super().__init__("the artifact is there")
        self.manifest = manifest


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

    Whether it can be put there is tried before the writer is yielded. If it cannot be put there at the end after all,
    the finished artifact is kept aside, and the error says where.

    Args:
        target: where the artifact will lie; a link is followed.
        kind: the kind of artifact, such as ``"dataset"``.
        config: the command's resolved configuration.
        inputs: records of the inputs that it is made from.
        overwrite: whether to replace what lies at ``target`` (only ever an artifact; moved away first, removed last).
        keep_partial: whether unfinished work stays when interrupted, so that the same command goes on from it.

    Raises:
        AlreadyMade: there is nothing left to do.
        Busy: another process is making the same artifact.
        InputError: the directory cannot be written or put in place, or another command is making something there.
        ArtifactError: something else lies at ``target``.
    """
    place, partial = place_of(target), partial_path(target, config)
    started, clock = datetime.now(UTC), time.monotonic()
    lock = claim(target, partial)
    writer = ArtifactWriter(partial, inputs)
    try:
        _begin(target, partial, (kind, config, inputs), overwrite=overwrite, keep_partial=keep_partial)
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
        _open_to_others(partial)
        _sync_tree(partial)
        write_text_durably(partial / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        _put_in_place(partial, target, overwrite=overwrite)
    except _NotPlaced as error:
        raise error.shown() from error.__cause__
    except BaseException as error:
        if not keep_partial or not any(path.is_file() for path in partial.rglob("*")):
            discard(partial)
        else:
            unfinished.note_end(partial, error)
        # An error that is made for the user already says more.
        reason = None if isinstance(error, OgpsaError) else _storage_problem(error, place.parent)
        if reason is None:
            raise
        raise InputError(
            f"writing '{target}' failed: {reason}", fix="free some space, or choose another --out"
        ) from error
    finally:
        os.close(lock)


def _begin(
    target: Path,
    partial: Path,
    wanted: tuple[str, CommandConfig, Sequence[InputRecord]],
    *,
    overwrite: bool,
    keep_partial: bool,
) -> None:
    """Look again at what lies at the target and aside, now that no other process changes it, and clear the directory.

    Raises:
        AlreadyMade: the artifact is there.
        ArtifactError: another artifact lies there.
    """
    there = find_finished(target, *wanted, overwrite=overwrite)
    if there is not None:
        raise AlreadyMade(there)
    unfinished.note_begin(partial)
    aside = _finished_aside(target, partial, wanted)
    if aside is not None:
        _put_in_place(partial, target, overwrite=overwrite)
        raise AlreadyMade(aside)
    # Other finished work is not continued: it was made from other inputs, or it is what a new artifact replaced.
    finished = is_artifact(partial)
    for path in [partial / MANIFEST, *partial.iterdir()] if finished else list(partial.iterdir()):
        if not keep_partial or (finished and not path.name.startswith(".")):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _finished_aside(
    target: Path, partial: Path, wanted: tuple[str, CommandConfig, Sequence[InputRecord]]
) -> Manifest | None:
    """The manifest of finished work that was never put in its place, if it is what is wanted now; else None."""
    if not is_artifact(partial):
        return None
    try:
        manifest = read_manifest(partial)
        replaced = is_artifact(target) and read_manifest(target).finished >= manifest.started
    except OgpsaError:
        return None
    return None if replaced or not _is_wanted(partial, manifest, *wanted) else manifest


class _NotPlaced(Exception):  # noqa: N818 - it becomes an InputError
    """Finished work could not be put in its place."""

    def __init__(self, partial: Path, target: Path, error: OSError) -> None:
        super().__init__(str(error))
        self.partial, self.target, self.error = partial, target, error

    def shown(self) -> InputError:
        place, number = place_of(self.target), 1
        while os.path.lexists(free := place.with_name(f"{place.name}-{number}")):
            number += 1
        return InputError(
            f"'{self.target}' is finished, but could not be put in its place: "
            f"{(self.error.strerror or str(self.error)).lower()}; nothing is lost, it lies aside",
            where=str(self.partial),
            fix=f"give it a name:  {shlex.join(['mv', str(self.partial), str(free)])}",
        )


def _put_in_place(partial: Path, target: Path, *, overwrite: bool) -> None:
    """Rename finished work to its place.

    Raises:
        _NotPlaced: that failed, and the work is still aside.
    """
    place = place_of(target)
    manifest = read_manifest(partial)
    try:
        put_in_place(partial, place, replace=overwrite and is_artifact(place))
    except OSError as error:
        if is_artifact(partial) and read_manifest(partial) == manifest:
            raise _NotPlaced(partial, target, error) from error
        raise


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


def _open_to_others(root: Path) -> None:
    """Give files the permissions that the user's umask grants; libraries that write aside leave theirs to the owner."""
    umask = os.umask(0o077)
    os.umask(umask)
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            mode = path.stat().st_mode
            granted = mode | (0o666 & ~umask)
            if granted != mode:
                path.chmod(granted)
