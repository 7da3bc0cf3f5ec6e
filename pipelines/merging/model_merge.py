"""Merging two adapters into the weights of their base model, one tensor at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing

from data_registry.core.errors import InputError
from pipelines.merging.factors import Factors
from pipelines.merging.layer_records import record_of
from pipelines.merging.layers import is_transposed
from pipelines.merging.measuring import AdapterMerge, Changes, MeasuredLayer, measure, record_of_layer
from pipelines.merging.rule import Change
from pipelines.merging.target import Target
from pipelines.weights.stored import Checkpoint, Stored, check_finite, read_blocks
from pipelines.weights.writing import PlannedTensor, ShardedFiles, natural, writing_order


def write_models(merge: AdapterMerge, base: Checkpoint, targets: Sequence[Target], max_shard_bytes: int) -> None:
    """Merge the adapters and put the result into the base model's weights, one model for each target.

    Args:
        merge: the two adapters and how they are merged.
        base: the model that the adapters change.
        targets: the results; their records are filled.
        max_shard_bytes: the size of a weight file above which the next one is begun.

    Raises:
        InputError: weights cannot be read or are not finite, or an adapter changes a weight that another module
            shares.
    """
    # By the names of the base's own tensors: an older layout may call them otherwise than the model does.
    layers = {_untied(base, layer.weight_name).name: layer for layer in merge.layers}
    extras = {stored.name: extra for name, extra in merge.finetuned.extras.items() if (stored := base.find(name))}
    plan = writing_order(
        [PlannedTensor(name, stored.torch_dtype, stored.shape) for name, stored in base.stored.items()]
    )
    ordered = [layers[tensor.name] for tensor in plan if tensor.name in layers]
    with ExitStack() as stack:
        files = [stack.enter_context(ShardedFiles(target.directory, plan, max_shard_bytes)) for target in targets]
        found = stack.enter_context(closing(measure(merge, ordered)))
        for tensor in plan:
            source = extras.get(tensor.name, base.stored[tensor.name])
            for file in files:
                file.begin(tensor.name, tensor.dtype, tensor.shape)
            if tensor.name not in layers:
                _copy(source, tensor, files, merge.workers)
                continue
            measured = next(found)
            transposed = is_transposed(merge.finetuned, measured.layer.any, base.stored[tensor.name], base)
            _add_change(merge, measured, source, tensor, targets, files, transposed)
    for target in targets:
        target.records.sort(key=lambda record: natural(record.layer))
        target.records.extend(record_of(name, "copied") for name in sorted(merge.finetuned.extras))


def _untied(base: Checkpoint, name: str) -> Stored:
    """The base's tensor for a weight that no other module shares."""
    found = base.need(name)
    shared = base.sharing(name)
    if shared is not None:
        raise InputError(
            f"'{name}' shares its weight with '{shared}', which the adapter does not mean to change",
            where=str(base.directory),
            fix="keep the adapter apart:  --output adapter",
        )
    return found


def _copy(source: Stored, tensor: PlannedTensor, files: Sequence[ShardedFiles], workers: int) -> None:
    if source.shape != tensor.shape:
        raise InputError(
            f"'{tensor.name}' is {list(source.shape)} in the adapter and {list(tensor.shape)} in the base model",
            where=str(source.file),
            fix="use the base model that the adapter was trained on",
        )
    for rows in read_blocks(source, workers):
        for file in files:
            file.write(rows.to(tensor.dtype))


def _add_change(
    merge: AdapterMerge,
    measured: MeasuredLayer,
    source: Stored,
    tensor: PlannedTensor,
    targets: Sequence[Target],
    files: Sequence[ShardedFiles],
    transposed: bool,
) -> None:
    changes = Changes(merge.rule, measured)
    made = dict(changes.at(target.threshold) for target in targets)
    oriented = {below: _oriented(change, transposed) for below, change in made.items()}
    errors = dict.fromkeys(made, 0.0)
    norms = dict.fromkeys(made, 0.0)
    start = 0
    for rows in read_blocks(source, merge.workers):
        stop = start + rows.shape[0]
        stored = {}
        check_finite(rows.float(), source)
        for below, change in oriented.items():
            part = change.rows(start, stop)
            exact = part + rows.float()
            stored[below] = exact.to(tensor.dtype)
            norms[below] += float((part.double() ** 2).sum())
            errors[below] += float(((stored[below].double() - rows.double() - part.double()) ** 2).sum())
        for target, file in zip(targets, files, strict=True):
            file.write(stored[changes.at(target.threshold)[0]])
        start = stop
    for target in targets:
        below, change = changes.at(target.threshold)
        error = (errors[below] / norms[below]) ** 0.5 if norms[below] > 0 else 0.0
        target.records.append(
            record_of_layer(measured, target.threshold, change.action, norm_merged=norms[below] ** 0.5, error=error)
        )


def _oriented(change: Change, transposed: bool) -> Change:
    """The change as the weight is stored."""
    if not transposed:
        return change
    value = change.value
    if isinstance(value, Factors):
        return Change(change.action, Factors(value.B.T.contiguous(), value.A.T.contiguous(), value.scaling))
    return Change(change.action, value.T)
