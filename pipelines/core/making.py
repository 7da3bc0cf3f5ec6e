"""Making an artifact: it is found finished, or all processes write it aside and it is then put in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.manifest import InputRecord, Manifest, read_manifest
from pipelines.core.artifact import ArtifactWriter, find_finished, partial_path, write_artifact
from pipelines.core.config import CommandConfig
from pipelines.core.job import barrier, is_main, on_main


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
    """
    manifest = on_main(lambda: _finished(wanted))
    return None if manifest is None else Made(wanted.path, manifest, up_to_date=True)


def make(wanted: Wanted, write: Callable[[ArtifactWriter], None]) -> Made:
    """Make an artifact unless it is there already. Collective.

    Args:
        wanted: the artifact to make, and where.
        write: fills the directory aside. It runs on all ranks with the same path; only rank zero's inputs and summary
            count. The artifact is put in its place once the function has returned on all ranks.

    Raises:
        ArtifactError: something else lies there; on all ranks.
        InputError: the directory cannot be written, or another job is writing it; on all ranks.
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
    found = [find(each) for each in wanted]
    to_do = [each for each, made in zip(wanted, found, strict=True) if made is None]
    written = _write(to_do, write) if to_do else {}
    return [
        Made(each.path, written[each.path], up_to_date=False) if made is None else made
        for each, made in zip(wanted, found, strict=True)
    ]


def _finished(wanted: Wanted) -> Manifest | None:
    return find_finished(wanted.path, wanted.kind, wanted.config, wanted.inputs, overwrite=wanted.overwrite)


def _write(wanted: Sequence[Wanted], write: Callable[[Mapping[Path, ArtifactWriter]], None]) -> dict[Path, Manifest]:
    """Write artifacts aside and put them in their places; returns their manifests on all ranks."""
    # Writers that are still open when the stack closes were left by an error, and discard what they have written.
    with contextlib.ExitStack() as unfinished:
        writers: dict[Path, ArtifactWriter] = {}
        on_main(lambda: writers.update(_opened(wanted, unfinished)))
        if not is_main():
            writers = {each.path: ArtifactWriter(partial_path(each.path, each.config), each.inputs) for each in wanted}
        write(writers)
        # A rank that failed never gets here, and then no artifact is put in its place.
        barrier()
        return on_main(lambda: _placed(wanted, unfinished))


def _opened(wanted: Sequence[Wanted], unfinished: contextlib.ExitStack) -> dict[Path, ArtifactWriter]:
    return {
        each.path: unfinished.enter_context(
            write_artifact(
                each.path,
                each.kind,
                each.config,
                each.inputs,
                overwrite=each.overwrite,
                keep_partial=each.keep_partial,
            )
        )
        for each in wanted
    }


def _placed(wanted: Sequence[Wanted], unfinished: contextlib.ExitStack) -> dict[Path, Manifest]:
    unfinished.close()
    return {each.path: read_manifest(each.path) for each in wanted}
