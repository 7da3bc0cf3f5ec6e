"""Merging two adapters into adapters, one for each threshold, in one pass over the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack, closing

from data_registry.core.errors import NumericsError
from pipelines.merging.adapters import PREFIX
from pipelines.merging.factors import Factors, norm
from pipelines.merging.layer_records import record_of
from pipelines.merging.layers import Layer
from pipelines.merging.measuring import AdapterMerge, Changes, MeasuredLayer, measure, record_of_layer
from pipelines.merging.rule import Change, as_factors
from pipelines.merging.target import Target
from pipelines.models.files import ADAPTER_WEIGHTS
from pipelines.weights.stored import DTYPES, Stored
from pipelines.weights.writing import TensorFile


def write_adapters(merge: AdapterMerge, targets: Sequence[Target], max_rank: int | None) -> None:
    """Merge into adapters, one for each target, in one pass; fills the targets' records and shapes.

    Args:
        merge: the two adapters and how they are merged.
        targets: the results.
        max_rank: highest rank of a result's layers; None for exact sums.

    Raises:
        InputError: weights cannot be read or are not finite.
        NumericsError: what comes out does not fit into the adapters' dtype.
    """
    names = [name for layer in merge.layers for name in _factor_names(layer)]
    extras = [(PREFIX + name, stored) for name, stored in sorted(merge.finetuned.extras.items())]
    wide = [(name, stored) for name, stored in extras if DTYPES[stored.dtype].itemsize >= merge.dtype.itemsize]
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                TensorFile(target.directory / ADAPTER_WEIGHTS, [*names, *(stored.name for _, stored in extras)])
            )
            for target in targets
        ]
        _copy_extras(files, wide)
        for measured in stack.enter_context(closing(measure(merge, merge.layers))):
            changes = Changes(merge.rule, measured)
            made: dict[bool, tuple[Factors, float]] = {}
            for target, file in zip(targets, files, strict=True):
                below, change = changes.at(target.threshold)
                if below not in made:
                    made[below] = _as_factors(merge, measured, change, max_rank)
                stored, error = made[below]
                _add_factors(file, measured.layer, stored)
                target.shapes[measured.layer.name] = (stored.rank, stored.scaling)
                target.records.append(
                    record_of_layer(measured, target.threshold, change.action, norm_merged=norm(stored),
                              rank_merged=stored.rank, error=error)
                )  # fmt: skip
        _copy_extras(files, [item for item in extras if item not in wide])
    for target in targets:
        target.records.extend(record_of(name, "copied") for name in sorted(merge.finetuned.extras))


def _as_factors(
    merge: AdapterMerge, measured: MeasuredLayer, change: Change, max_rank: int | None
) -> tuple[Factors, float]:
    present = [factors for factors in (measured.finetuned, measured.safe) if factors is not None]
    name = measured.layer.name
    stored, error = as_factors(
        change, merge.rule, name, scaling=present[0].scaling, max_rank=max_rank,
        default_rank=sum(factors.rank for factors in present), dtype=merge.dtype,
    )  # fmt: skip
    if not math.isfinite(error):
        raise NumericsError(
            f"the merged factors of '{name}' do not fit into {str(merge.dtype).removeprefix('torch.')}",
            where=str(measured.layer.any.B.file),
            fix="save one of the adapters in float32 or bfloat16, or merge into the model:  --output model",
        )
    return stored, error


def _factor_names(layer: Layer) -> tuple[str, str]:
    middle = ".lora_embedding_{}" if layer.any.is_embedding else ".lora_{}.weight"
    return PREFIX + layer.name + middle.format("A"), PREFIX + layer.name + middle.format("B")


def _add_factors(file: TensorFile, layer: Layer, factors: Factors) -> None:
    for name, factor in zip(_factor_names(layer), (factors.A, factors.B), strict=True):
        file.add(name, factor)


def _copy_extras(files: Sequence[TensorFile], extras: Sequence[tuple[str, Stored]]) -> None:
    for _, stored in extras:
        tensor = stored.read()
        for file in files:
            file.add(stored.name, tensor)
