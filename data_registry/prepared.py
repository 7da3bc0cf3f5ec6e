"""Prepared data sets: the artifact that ``prepare-data`` writes and every later command reads."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, cast

from data_registry.core.arrow_values import DAMAGE, checked
from data_registry.core.errors import ArtifactError, InputError, first_line
from data_registry.core.manifest import Manifest, is_artifact, open_artifact
from data_registry.core.redaction import hide_arguments
from data_registry.schema import COLUMNS, EXTRA, Task, arrow_schema

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_REPLACED = ("--task", "--out", "-o", "--overwrite")
KIND = "dataset"
SAMPLES = "samples"
"""The kind of a model's own answers, whose rows are those of a prepared data set for SFT, with some columns more."""


def load_prepared(
    path: str | Path, *, task: str | None = None, verify: bool = False
) -> tuple[datasets.Dataset, Manifest]:
    """Open a prepared data set; its rows stay on disk (memory-mapped), and are checked before one is given on.

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
            fix=f"prepare it first:  {_preparing(path, task)}",
        )
    manifest = open_artifact(path, (KIND, SAMPLES), hashes=verify)
    found = str(manifest.summary.get("task"))
    if found not in COLUMNS:
        raise ArtifactError(f"the manifest of '{path}' does not say what task its rows are for", where=str(path))
    if task is not None and found != task:
        raise InputError(
            f"'{path}' holds rows for {found}, where {task} is needed",
            fix=f"prepare the same source for it:  {_prepared_for(manifest, path, task)}",
        )
    import datasets
    import pyarrow

    try:
        rows = datasets.load_from_disk(str(path))
        if not isinstance(rows, datasets.Dataset) or set(COLUMNS[found]) - set(rows.column_names):
            raise ArtifactError(f"'{path}' does not hold the columns {', '.join(COLUMNS[found])}", where=str(path))
        extra = [name for name in EXTRA[found] if name in rows.column_names]
        _check_rows(rows, arrow_schema(cast("Task", found), extra))
    except (pyarrow.ArrowException, *DAMAGE) as error:
        raise ArtifactError(f"the rows of '{path}' cannot be read: {first_line(error)}", where=str(path)) from error
    return rows, manifest


def _preparing(path: Path, task: str | None) -> str:
    """The command that prepares a file or folder."""
    words = ["ogpsa", "prepare-data", str(path), *([] if task is None else ["--task", task])]
    return shlex.join([*words, "--out", f"{path.with_suffix('')}-{task or 'prepared'}"])


def _prepared_for(manifest: Manifest, path: Path, task: str) -> str:
    """The command that made a data set, changed so that it makes one for another task beside it."""
    words = hide_arguments(manifest.command)
    if words[:2] != ["ogpsa", "prepare-data"]:
        words = ["ogpsa", "prepare-data", "SOURCE"]
    kept, skip = [], False
    for word in words:
        name, has_value, _ = word.partition("=")
        if not skip and name not in _REPLACED:
            kept.append(word)
        skip = not skip and name in _REPLACED and not has_value and name != "--overwrite"
    return shlex.join([*kept, "--task", task, "--out", f"{path}-{task}"])


def _check_rows(rows: datasets.Dataset, schema: pa.Schema) -> None:
    """Check all rows as far as Arrow can, so that none ends the process by a signal when it is taken out.

    Raises:
        pyarrow.ArrowInvalid: a batch is damaged, or a column has another type than prepared rows, or lacks values.
    """
    import pyarrow as pa

    for column in schema:
        # Where no row has a text, a writer that goes by values gives the column the type of nothing.
        kinds = (column.type, pa.null()) if column.type == pa.string() else (column.type,)
        if rows.data.schema.field(column.name).type not in kinds:
            what = "text" if column.type == pa.string() else "a list of messages"
            raise pa.ArrowInvalid(f"column '{column.name}' is not {what}")
    for batch in checked(rows.data.to_batches(), as_text=True):
        for column in schema:
            if column.type == pa.string():
                continue
            messages = batch.column(column.name)
            entries = messages.flatten()
            fields = [] if messages.null_count or entries.null_count else entries.flatten()
            if not fields or any(field.null_count for field in fields):
                raise pa.ArrowInvalid(f"column '{column.name}' lacks a message, or a message its role or text")
