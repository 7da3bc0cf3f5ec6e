"""Making an artifact: it is found finished, or all processes write it aside and it is then put in its place."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from data_registry.core.errors import OgpsaError
from data_registry.core.manifest import InputRecord, Manifest, read_manifest
from pipelines.core.artifact import AlreadyMade, ArtifactWriter, find_finished, write_artifact
from pipelines.core.claiming import Busy
from pipelines.core.config import CommandConfig
from pipelines.core.job import barrier, is_main, on_main
from pipelines.core.looking import end_if_looking, note_found

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """An artifact that a command is asked for.

    Attributes:
        path: the directory where it is to lie.
        kind: the kind of artifact, such as ``"dataset"``.
        config: the command's resolved configuration.
        inputs: records of the inputs that it is made from.
        overwrite: whether to replace what lies there, if it is an artifact.
        keep_partial: whether unfinished work stays when interrupted, so that the same command goes on from it.
    """

    path: Path
    kind: str
    config: CommandConfig
    inputs: Sequence[InputRecord] = ()
    overwrite: bool = False
    keep_partial: bool = False


@dataclass(frozen=True)
class Made:
    """A finished artifact: its directory, its manifest, and whether it was there already."""

    path: Path
    manifest: Manifest
    up_to_date: bool


def find(wanted: Wanted) -> Made | None:
    """The artifact if it is there already. Collective; rank zero looks.

    :func:`make` looks too. This function is for commands that compute for long before they write.

    Raises:
        ArtifactError: something else lies there; on all ranks.
        WouldWork: it is not there, and the command only looks.
    """
    manifest = on_main(lambda: _finished(wanted))
    if manifest is None:
        end_if_looking()
        return None
    note_found()
    return Made(wanted.path, manifest, up_to_date=True)


def make(wanted: Wanted, write: Callable[[ArtifactWriter], None]) -> Made:
    """Make an artifact unless it is there already. Collective.

    Args:
        wanted: the artifact to make, and where.
        write: fills the directory aside. It runs on all ranks with the same path; only rank zero's inputs and summary
            count. The artifact is put in its place once the function has returned on all ranks.

    Raises:
        ArtifactError: something else lies there; on all ranks.
        InputError: the directory cannot be written, or another job is making something else there; on all ranks. A job
            that makes the same artifact is waited for.
    """
    (made,) = make_all([wanted], lambda writers: write(writers[wanted.path]))
    return made


def make_all(wanted: Sequence[Wanted], write: Callable[[Mapping[Path, ArtifactWriter]], None]) -> list[Made]:
    """Make several artifacts in one go, except those that are there already. Collective.

    Args:
        wanted: the artifacts to make, each at a path of its own.
        write: as for :func:`make`; it gets the writers of those artifacts that are not there yet, by path and in order.

    Returns:
        all the artifacts, in order.

    Raises:
        ArtifactError: as for :func:`make`.
        InputError: as for :func:`make`.
    """
    settled: dict[Path, Manifest] = {}
    waiting = False
    while True:
        found = [find(each) if each.path not in settled else None for each in wanted]
        missing = [each for each, made in zip(wanted, found, strict=True) if made is None]
        written = _write([each for each in missing if each.path not in settled], write)
        if written.made is not None:
            break
        # Another process is making one of them, or has just made it: all ranks look again.
        settled |= written.settled
        if written.busy is not None and not waiting:
            waiting = True
            logger.info("%s; waiting for it", written.busy)
    manifests = {**settled, **written.made}
    return [
        Made(each.path, manifests[each.path], up_to_date=False) if made is None else made
        for each, made in zip(wanted, found, strict=True)
    ]


@dataclass(frozen=True)
class _Written:
    """How an attempt to write artifacts went.

    Attributes:
        made: their manifests; None if the attempt ended before anything was written.
        settled: of those that lay finished aside, and are now in their places.
        busy: what to tell the user if another process is making one of them.
    """

    made: dict[Path, Manifest] | None = None
    settled: Mapping[Path, Manifest] = field(default_factory=dict)
    busy: str | None = None


def _finished(wanted: Wanted) -> Manifest | None:
    return find_finished(wanted.path, wanted.kind, wanted.config, wanted.inputs, overwrite=wanted.overwrite)


def _write(wanted: Sequence[Wanted], write: Callable[[Mapping[Path, ArtifactWriter]], None]) -> _Written:
    """Write artifacts aside and put them in their places; every rank gets the manifests."""
    if not wanted:
        return _Written(made={})
    # Writers that are still open when the stack closes were left by an error, and discard what they have written.
    with contextlib.ExitStack() as unfinished:
        writers: dict[Path, ArtifactWriter] = {}
        openings: list[AbstractContextManager[ArtifactWriter]] = []
        opened = on_main(lambda: _open(wanted, writers, openings, unfinished))
        if isinstance(opened, _Written):
            return opened
        if not is_main():
            writers = {each.path: ArtifactWriter(opened[each.path], each.inputs) for each in wanted}
        write(writers)
        # A rank that failed never gets here, and then no artifact is put in its place.
        barrier()
        return _Written(made=on_main(lambda: _placed(wanted, openings, unfinished)))


def _open(
    wanted: Sequence[Wanted],
    writers: dict[Path, ArtifactWriter],
    openings: list[AbstractContextManager[ArtifactWriter]],
    unfinished: contextlib.ExitStack,
) -> _Written | dict[Path, Path]:
    """Open a writer for each artifact, and say where they write; if one cannot be opened now, none stays open."""
    for each in wanted:
        opening = write_artifact(
            each.path, each.kind, each.config, each.inputs, overwrite=each.overwrite, keep_partial=each.keep_partial
        )
        try:
            writers[each.path] = unfinished.enter_context(opening)
            openings.append(opening)
        except AlreadyMade as there:
            _give_up(unfinished)
            return _Written(settled={each.path: there.manifest} if each.overwrite else {})
        except Busy as busy:
            _give_up(unfinished)
            return _Written(busy=busy.what)
    return {path: writer.path for path, writer in writers.items()}


class _GivenUp(Exception):  # noqa: N818 - it never leaves this module
    """Ends writers that have written nothing."""


def _give_up(unfinished: contextlib.ExitStack) -> None:
    with contextlib.suppress(_GivenUp), unfinished.pop_all():
        raise _GivenUp


def _placed(
    wanted: Sequence[Wanted],
    openings: Sequence[AbstractContextManager[ArtifactWriter]],
    unfinished: contextlib.ExitStack,
) -> dict[Path, Manifest]:
    """Finish all artifacts, each by itself: if one cannot be put in its place, the others still are."""
    unfinished.pop_all()
    failures: list[OgpsaError] = []
    with contextlib.ExitStack() as interrupted:
        for number, opening in enumerate(openings):
            # A signal that comes now ends those too that have not been finished yet.
            rest = interrupted.enter_context(contextlib.ExitStack())
            for later in openings[number + 1 :]:
                rest.push(later)
            try:
                opening.__exit__(None, None, None)
            except OgpsaError as error:
                failures.append(error)
            rest.pop_all()
    if failures:
        raise failures[0]
    return {each.path: read_manifest(each.path) for each in wanted}
