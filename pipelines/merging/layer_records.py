"""What was found and done, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

LAYERS_FILE = "layers.parquet"
REPAIRS = ("merged", "projected")
_NUMBER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")


@dataclass(frozen=True)
class LayerRecord:
    """One layer of a merge.

    Attributes:
        layer: module path, or tensor name for full models.
        module_type: the kind of module, such as ``q_proj``.
        depth: number of its block; None outside blocks.
        rho: cos(C D, D); None for methods without criterion.
        threshold: the rho below which the layer is repaired; None for methods without criterion.
        action: ``kept``, ``merged``, ``projected``, ``safe only`` (there was nothing fine-tuned), or ``copied`` (not a
            matrix to be merged: from the fine-tuned side as it is).
        norm_finetuned: Frobenius norm of the fine-tuned change.
        norm_safe: Frobenius norm of the safe change.
        norm_merged: Frobenius norm of the result.
        norm_alignment: Frobenius norm of W_aligned - W_unaligned.
        rank_finetuned: LoRA rank of the fine-tuned adapter in this layer.
        rank_safe: LoRA rank of the safe adapter in this layer.
        rank_merged: LoRA rank of the result.
        error: relative distance of what was stored from the exact result: truncation and rounding.
    """

    layer: str
    module_type: str
    depth: int | None
    rho: float | None
    threshold: float | None
    action: str
    norm_finetuned: float | None = None
    norm_safe: float | None = None
    norm_merged: float | None = None
    norm_alignment: float | None = None
    rank_finetuned: int | None = None
    rank_safe: int | None = None
    rank_merged: int | None = None
    error: float | None = None

    @property
    def is_repaired(self) -> bool:
        """Whether the layer is another than the fine-tuned one because of what was found or asked."""
        return self.action in REPAIRS


def depth_of(name: str) -> int | None:
    """The number of the block that a tensor belongs to; None outside blocks."""
    found = _NUMBER.search(name)
    return int(found[1]) if found else None


def type_of(name: str) -> str:
    """What kind of module a tensor belongs to, such as ``q_proj``."""
    parts = [part for part in re.sub(r"(\.weight|\[\d+\])+$", "", name).split(".") if not part.isdigit()]
    return parts[-1] if parts else name


def record_of(
    name: str, action: str, *, rho: float | None = None, threshold: float | None = None, **more: Any
) -> LayerRecord:
    """The row on a layer or tensor, with what its name says; the threshold counts only where there is a rho."""
    return LayerRecord(name, type_of(name), depth_of(name), rho, threshold if rho is not None else None, action, **more)


_TYPES = {"str": pa.string(), "int | None": pa.int64(), "float | None": pa.float64()}


def write_records(path: Path, records: Sequence[LayerRecord]) -> None:
    """Write them as Parquet, one row each, columns as in :class:`LayerRecord`."""
    schema = pa.schema([(field.name, _TYPES[str(field.type)]) for field in fields(LayerRecord)])
    columns = {name: [getattr(record, name) for record in records] for name in schema.names}
    pq.write_table(pa.table(columns, schema=schema), path)


def read_records(path: Path) -> list[LayerRecord]:
    """What :func:`write_records` wrote."""
    return [LayerRecord(**row) for row in pq.read_table(path).to_pylist()]


def figures(records: Sequence[LayerRecord]) -> dict[str, Any]:
    """The figures of a merge for its manifest."""
    layers = [record for record in records if record.action != "copied"]
    rhos = sorted(record.rho for record in layers if record.rho is not None)
    errors = [record.error for record in layers if record.error is not None]
    found: dict[str, Any] = {"layers": len(layers)}
    for action in (*REPAIRS, "kept", "safe only"):
        count = sum(record.action == action for record in layers)
        if count:
            found[action.replace(" ", "_")] = count
    if rhos:
        found |= {"rho_min": rhos[0], "rho_median": rhos[len(rhos) // 2], "rho_max": rhos[-1]}
        found["threshold"] = next(record.threshold for record in layers if record.rho is not None)
    if errors:
        found["error_max"] = max(errors)
    return found
