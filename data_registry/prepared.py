"""Prepared data sets: the artifact that ``prepare-data`` writes and every later command reads."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from data_registry.core.arrow_values import DAMAGE, checked
from data_registry.core.errors import ArtifactError, InputError, first_line
from data_registry.core.manifest import Manifest, compare_file, is_artifact, open_artifact
from data_registry.core.redaction import hide_arguments
from data_registry.schema import COLUMNS, EXTRA, Task, arrow_schema

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_REPLACED = ("--task", "--out", "-o", "--overwrite")
KIND = "dataset"
SAMPLES = "samples"
"""The kind of a model's own answers, whose rows are those of a prepared data set for SFT, with some columns more."""
_STATE, _INFO = "state.json", "dataset_info.json"
# Where ``datasets`` has another name for a type than Arrow.
_ARROW_NAMES = {"float32": "float", "float64": "double"}


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
    manifest, found = _open(path, task, verify=verify)
    return _load(path, found), manifest


def prepared_table(path: str | Path, *, task: str | None = None) -> tuple[pa.Table, Manifest]:
    """Open a prepared data set as :func:`load_prepared` does, with its rows as an Arrow table.

    Where the files are as they were written, this reads them without the library ``datasets``, which takes longer to
    import than they take to read.

    Args:
        path: the folder that ``prepare-data --out`` wrote.
        task: ``"sft"`` or ``"preference"`` where only one of them will do.

    Returns:
        The rows in normal form, memory-mapped, and the manifest.

    Raises:
        InputError: as for :func:`load_prepared`.
        ArtifactError: as for :func:`load_prepared`.
    """
    path = Path(path)
    manifest, found = _open(path, task, verify=False)
    rows = _mapped(path, manifest, found)
    return (_load(path, found).data.table if rows is None else rows), manifest


def _open(path: Path, task: str | None, *, verify: bool) -> tuple[Manifest, str]:
    """The manifest of a prepared data set and the task of its rows."""
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
    return manifest, found


def _mapped(path: Path, manifest: Manifest, task: str) -> pa.Table | None:
    """The rows, if the files are just as they were written, else None: ``datasets`` then says what is wrong."""
    if any(
        name not in manifest.files or compare_file(path / name, name, manifest.files[name], hashes=True)
        for name in (_STATE, _INFO)
    ):
        return None
    import pyarrow as pa

    try:
        files = [entry["filename"] for entry in json.loads((path / _STATE).read_text(encoding="utf-8"))["_data_files"]]
        features = json.loads((path / _INFO).read_text(encoding="utf-8"))["features"]
        tables = [pa.ipc.open_stream(pa.memory_map(str(path / name))).read_all() for name in files]
        rows = pa.concat_tables(tables)
        told = (rows.schema.metadata or {}).get(b"huggingface")
        if not set(files) <= manifest.files.keys() or rows.column_names != list(features):
            return None
        if told is not None and json.loads(told)["info"]["features"] != features:
            return None
        if not all(_is_of(column.type, features[column.name]) for column in rows.schema):
            return None
        _check_rows(rows, _schema_of(task, rows.column_names))
    except (pa.ArrowException, *DAMAGE):
        return None
    return rows


def _is_of(kind: pa.DataType, feature: Any) -> bool:
    """Whether an Arrow type is the one that a feature of ``datasets`` stands for, as far as prepared rows have them."""
    import pyarrow as pa

    if isinstance(feature, list) or not isinstance(feature, dict):
        return False
    if feature.get("_type") == "Value":
        return str(kind) == _ARROW_NAMES.get(feature["dtype"], feature["dtype"])
    if feature.get("_type") == "List":
        return pa.types.is_list(kind) and _is_of(kind.value_type, feature["feature"])
    if "_type" in feature or not pa.types.is_struct(kind):
        return False
    names = [kind.field(index).name for index in range(kind.num_fields)]
    return names == list(feature) and all(_is_of(kind.field(name).type, feature[name]) for name in names)


def _schema_of(task: str, columns: list[str]) -> pa.Schema:
    return arrow_schema(cast("Task", task), [name for name in EXTRA[task] if name in columns])


def _load(path: Path, task: str) -> datasets.Dataset:
    """The rows by ``datasets``, checked.

    Raises:
        ArtifactError: they cannot be read, or are not in normal form.
    """
    import datasets
    import pyarrow

    try:
        rows = datasets.load_from_disk(str(path))
        if not isinstance(rows, datasets.Dataset) or set(COLUMNS[task]) - set(rows.column_names):
            raise ArtifactError(f"'{path}' does not hold the columns {', '.join(COLUMNS[task])}", where=str(path))
        _check_rows(rows.data, _schema_of(task, rows.column_names))
    except (pyarrow.ArrowException, *DAMAGE) as error:
        raise ArtifactError(f"the rows of '{path}' cannot be read: {first_line(error)}", where=str(path)) from error
    return rows


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


def _check_rows(rows: pa.Table, schema: pa.Schema) -> None:
    """Check all rows as far as Arrow can, so that none ends the process by a signal when it is taken out.

    Raises:
        pyarrow.ArrowInvalid: a batch is damaged, or a column has another type than prepared rows, or lacks values.
    """
    import pyarrow as pa

    for column in schema:
        # Where no row has a text, a writer that goes by values gives the column the type of nothing.
        kinds = (column.type, pa.null()) if column.type == pa.string() else (column.type,)
        if rows.schema.field(column.name).type not in kinds:
            what = "text" if column.type == pa.string() else "a list of messages"
            raise pa.ArrowInvalid(f"column '{column.name}' is not {what}")
    for batch in checked(rows.to_batches(), as_text=True):
        for column in schema:
            if column.type == pa.string():
                continue
            messages = batch.column(column.name)
            entries = messages.flatten()
            fields = [] if messages.null_count or entries.null_count else entries.flatten()
            if not fields or any(field.null_count for field in fields):
                raise pa.ArrowInvalid(f"column '{column.name}' lacks a message, or a message its role or text")
