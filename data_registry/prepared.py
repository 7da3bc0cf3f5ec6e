"""Prepared data sets: the artifact that ``prepare-data`` writes and every later command reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core.errors import ArtifactError, InputError, first_line
from data_registry.core.manifest import Manifest, is_artifact, open_artifact
from data_registry.schema import COLUMNS

if TYPE_CHECKING:
    import datasets

KIND = "dataset"
SAMPLES = "samples"
"""The kind of a model's own answers, whose rows are those of a prepared data set for SFT, with some columns more."""


def load_prepared(
    path: str | Path, *, task: str | None = None, verify: bool = False
) -> tuple[datasets.Dataset, Manifest]:
    """Open a prepared data set; its rows stay on disk (memory-mapped).

    Args:
        path: the folder that ``prepare-data --out`` wrote.
        task: ``"sft"`` or ``"preference"`` where only one of them will do.
        verify: compare content hashes too, not only presence and sizes.

    Returns:
        The rows in normal form, and the manifest; ``manifest.summary["task"]`` says which form.

    Raises:
        InputError: nothing is there, it was not made by ``prepare-data``, or it is for another task.
        ArtifactError: it does not verify, is of another kind, or cannot be read.
    """
    path = Path(path)
    if path.exists() and not is_artifact(path):
        raise InputError(
            f"'{path}' is not a prepared data set",
            fix=f"prepare it first:  ogpsa prepare-data {path} --out DIR",
        )
    manifest = open_artifact(path, (KIND, SAMPLES), hashes=verify)
    found = str(manifest.summary.get("task"))
    if found not in COLUMNS:
        raise ArtifactError(f"the manifest of '{path}' does not say what task its rows are for", where=str(path))
    if task is not None and found != task:
        raise InputError(
            f"'{path}' holds rows for {found}, where {task} is needed",
            fix=f"prepare the same source with:  --task {task}",
        )
    import datasets
    import pyarrow

    try:
        rows = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise ArtifactError(f"the rows of '{path}' cannot be read: {first_line(error)}", where=str(path)) from error
    if not isinstance(rows, datasets.Dataset) or set(COLUMNS[found]) - set(rows.column_names):
        raise ArtifactError(f"'{path}' does not hold the columns {', '.join(COLUMNS[found])}", where=str(path))
    return rows, manifest
