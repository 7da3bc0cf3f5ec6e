"""Artifacts as flat records: a value for every tensor, row and table, from which distances can be told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from pyarrow import ipc
from safetensors.torch import load_file

from tests.golden.normalising import digest, normal, normal_value

Record = dict[str, Any]
_MANIFEST = ("kind", "inputs", "summary")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
_SEED = 0


def artifacts(root: Path) -> dict[str, Record]:
    """Every artifact below a directory, by its path."""
    found: dict[str, Record] = {}
    for manifest in sorted(root.rglob("manifest.json")):
        name = normal(manifest.parent.relative_to(root).as_posix(), root)
        if name in found:
            raise ValueError(f"two artifacts would be recorded as '{name}'")
        found[name] = _artifact(manifest.parent, root)
    return found


def _artifact(directory: Path, root: Path) -> Record:
    manifest = json.loads((directory / "manifest.json").read_text())
    # The rest of the manifest depends on times and places.
    record: Record = {f"manifest {key}": normal_value(manifest[key], root) for key in _MANIFEST}
    record["manifest identity"] = digest(manifest["identity"])
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    record["files"] = [path.relative_to(directory).as_posix() for path in paths]
    start = _start(manifest, root)
    for path in paths:
        record |= _file(path, path.relative_to(directory).as_posix(), root, start)
    return record


def _start(manifest: dict[str, Any], root: Path) -> dict[str, torch.Tensor]:
    """The weights that a run, or the first of a chain of runs, started from; empty where the artifact is no run."""
    if manifest["kind"] != "run":
        return {}
    model = root / next(entry["path"] for entry in manifest["inputs"] if entry["role"] == "model")
    before = json.loads((model / "manifest.json").read_text())
    if before["kind"] == "run":
        return _start(before, root)
    files = sorted(model.rglob("model*.safetensors"))
    return {name: tensor for path in files for name, tensor in load_file(path).items()}


def _file(path: Path, name: str, root: Path, start: dict[str, torch.Tensor]) -> Record:
    """Record of one file; of pictures, pages and copies of the configuration only that they are there."""
    match path.suffix:
        case ".safetensors" if path.name == "gram.safetensors":
            products = [tensor.flatten() for _, tensor in sorted(load_file(path).items())]
            return {name: _tensor(torch.cat(products), None)}
        case ".safetensors":
            return {f"{name} {key}": _tensor(value, start.get(key)) for key, value in load_file(path).items()}
        case ".jsonl":
            lines = path.read_text().splitlines()
            return {f"{name} {index}": normal_value(json.loads(line), root) for index, line in enumerate(lines)}
        case ".json":
            return _document(path, name, root)
        case ".parquet":
            return {name: _table(pyarrow.parquet.read_table(path), root)}
        case ".arrow":
            return {name: _rows(path)}
        case ".csv":
            return {f"{name} {index}": line for index, line in enumerate(path.read_text().splitlines())}
        case ".md":
            text = normal(path.read_text(), root)
            return {name: {"lines": len(text.splitlines()), "words": digest(_NUMBER.sub("#", text))}}
    return {}


def _document(path: Path, name: str, root: Path) -> Record:
    if path.name == "manifest.json" or path.name.endswith(".index.json"):
        return {}
    values = normal_value(json.loads(path.read_text()), root)
    if path.name in ("results.json", "basis.json"):
        # The shapes are those of the rows.
        return {f"{name} {key}": value for key, value in values.items() if key != "shapes"}
    # PEFT keeps names of modules as a set, whose order is another one in every process.
    values = {key: sorted(value) if key == "target_modules" else value for key, value in values.items()}
    return {name: {"content": digest(json.dumps(values))}}


def _tensor(tensor: torch.Tensor, start: torch.Tensor | None) -> str:
    """Digest of a tensor in words: shape, dtype, bytes; in float64 sum, norm, product with a random vector, change.

    The change is the norm of what training did, or the norm of the tensor where nothing was before.
    """
    values = tensor.double().flatten().numpy()
    moved = values if start is None or start.shape != tensor.shape else values - start.double().flatten().numpy()
    random = np.random.default_rng(_SEED).standard_normal(values.size)
    figures = f"{values.sum():.7g} {np.linalg.norm(values):.10g} {values @ random:.10g} {np.linalg.norm(moved):.4g}"
    shape, dtype = "x".join(map(str, tensor.shape)), str(tensor.dtype).removeprefix("torch.")
    return f"{shape} {dtype} {figures} {digest(tensor.contiguous().view(torch.uint8).numpy().tobytes())}"


def _rows(path: Path) -> Record:
    """Prepared data, which no machine makes otherwise than another."""
    with ipc.open_stream(path) as stream:
        table = stream.read_all()
    return {"rows": table.num_rows, "content": digest(json.dumps(table.to_pylist()))}


def _table(table: Any, root: Path) -> Record:
    """A table of figures: sums of its numeric columns, and a digest of everything."""
    rows = normal_value(table.to_pylist(), root)
    columns = {name: [row[name] for row in rows if row[name] is not None] for name in table.column_names}
    sums = {
        name: sum(values) for name, values in columns.items() if values and all(isinstance(v, float) for v in values)
    }
    return {"columns": table.column_names, "rows": table.num_rows, "sums": sums, "bytes": digest(json.dumps(rows))}
