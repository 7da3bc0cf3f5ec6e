"""Two ranks make artifacts together; what each of them was told goes into the findings."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from data_registry.core.errors import OgpsaError
from pipelines.core import artifact
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.config import CommandConfig, option
from pipelines.core.job import gather, rank
from pipelines.core.making import Made, Wanted, make
from pipelines.engine import processes
from tests.distributed.ranks import write_findings


class Sample(CommandConfig):
    """A command for tests."""

    steps: int = option(1, "A count.")


def fill(writer: ArtifactWriter) -> None:
    """This rank's share."""
    (writer.path / f"share-{rank()}").write_text("some")
    writer.summary["by"] = rank()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _told(made: Made) -> list[Any]:
    return [made.up_to_date, made.manifest.summary, sorted(made.manifest.files)]


def _error(work: Callable[[], object]) -> str:
    try:
        work()
    except OgpsaError as error:
        return f"{type(error).__name__}: {error.what}"
    return "nothing"


def _full(path: Path, text: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def _failing(writer: ArtifactWriter) -> None:
    fill(writer)
    if rank() == 1:
        # As a process ends that fails on its own: it says nothing to the others.
        os._exit(0)


def main(directory: Path) -> None:
    processes.start()
    place = directory / "artifacts"
    findings: dict[str, Any] = {}
    first = Wanted(place / "out", "dataset", Sample())
    for name in ("made", "found"):
        findings[name] = gather(_told(make(first, fill)))
    other = Wanted(place / "out", "dataset", Sample(steps=2))
    findings["found something else"] = gather(_error(lambda: make(other, fill)))
    nowhere = Wanted(Path("/proc/ogpsa/out"), "dataset", Sample())
    findings["opening"] = gather(_error(lambda: make(nowhere, fill)))
    with mock.patch.object(artifact, "write_text_durably", _full):
        findings["placing"] = gather(_error(lambda: make(Wanted(place / "full", "dataset", Sample()), fill)))
    raised = False
    try:
        make(Wanted(directory / "alone" / "out", "dataset", Sample()), _failing)
    except RuntimeError:
        raised = True
    findings["failure of rank 1"] = {"raised": raised, "left": names(directory / "alone")}
    write_findings(directory, findings)
    # There is nobody left to leave the group with.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
