"""Merging full models, no adapters: the same criterion on weight differences, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from data_registry.core.errors import InputError
from pipelines.core.progress import Progress
from pipelines.merging.criterion import project_dense
from pipelines.merging.layer_records import LayerRecord, record_of
from pipelines.merging.rule import Rule, merge_dense, weighted
from pipelines.merging.target import Target
from pipelines.models.text_config import text_setting
from pipelines.weights.read_ahead import read_ahead
from pipelines.weights.stored import Checkpoint, Stored, check_finite, difference, has_rows, read_blocks, row_blocks
from pipelines.weights.writing import PlannedTensor, ShardedFiles, writing_order


@dataclass(frozen=True)
class FullMerge:
    """Full models and how they are merged.

    Attributes:
        finetuned: the model that is to be repaired.
        safe: the model that is merged in; None where the method takes none.
        base: the model that fine-tuning started from; None where the method needs none.
        models: the aligned and the unaligned model; None for methods without criterion.
        rule: the method, its weights, and when a layer is merged.
        workers: threads that read ahead.
        known: rho and the norm of V by matrix, from an earlier pass.
    """

    finetuned: Checkpoint
    safe: Checkpoint | None
    base: Checkpoint | None
    models: tuple[Checkpoint, Checkpoint] | None
    rule: Rule
    workers: int
    known: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def others(self) -> list[Checkpoint]:
        """The models beside the fine-tuned one that every merged tensor is read from."""
        return [model for model in (self.safe, self.base, *(self.models or ())) if model is not None]


@dataclass(frozen=True)
class Matrix:
    """One matrix of a tensor, in all the models.

    Attributes:
        name: the name of the tensor, with ``[i]`` for a matrix of a stack (experts).
        index: the place of the matrix in the stack; None where there is none.
        finetuned: the fine-tuned weight.
        safe: the safe weight.
        base: the weight that fine-tuning started from.
        direction: the aligned and the unaligned weight.
        transposed: the weights are stored as ``[in, out]``.
    """

    name: str
    index: int | None
    finetuned: Stored
    safe: Stored | None
    base: Stored | None
    direction: tuple[Stored, Stored] | None
    transposed: bool = False

    def change(self, of: Stored, workers: int) -> Tensor:
        """A weight minus the base's, float32, as it is stored."""
        assert self.base is not None
        return torch.cat(_differences(of, self.base, self.index, workers))


def _differences(left: Stored, right: Stored, index: int | None, workers: int) -> list[Tensor]:
    reads = (
        lambda start=start, stop=stop: difference(left, right, start, stop, index=index)
        for start, stop in row_blocks(left.shape)
    )
    with read_ahead(reads, workers) as blocks:
        return list(blocks)


def unpaired_tensors(merge: FullMerge) -> list[str]:
    """The tensors that only some of the models have, in words."""
    found = []
    for other in merge.others:
        missing = [name for name in merge.finetuned.stored if other.find(merge.finetuned.name_of(name)) is None]
        found += [f"{name} (not in {other.source.reference})" for name in missing]
        more = [name for name in other.stored if merge.finetuned.find(other.name_of(name)) is None]
        found += [f"{name} (only in {other.source.reference})" for name in more]
        # Where the criterion decides, embeddings and heads are not merged at all.
        if merge.models is None:
            found += _lost_to_ties(merge.finetuned, other)
    return list(dict.fromkeys(found))


def _lost_to_ties(finetuned: Checkpoint, other: Checkpoint) -> list[str]:
    """The weights that another model has apart, and that the fine-tuned one ties to another, merged weight."""
    lost = []
    for stored in other.stored:
        name = other.name_of(stored)
        tied = finetuned.find(name)
        if tied is not None and finetuned.name_of(tied.name) != name and other.sharing(name) is None:
            lost.append(
                f"{stored} (apart in {other.source.reference}, and tied to {tied.name} in the fine-tuned model)"
            )
    return lost


def check_pairs(merge: FullMerge, *, allow_unpaired: bool) -> None:
    """Refuse models with different tensors.

    Raises:
        InputError: a tensor is in some of the models only, or shapes differ.
    """
    unpaired = unpaired_tensors(merge)
    if unpaired and not allow_unpaired:
        raise InputError(
            f"{len(unpaired)} weights are not in all models",
            where="; ".join(unpaired[:4]) + (" ..." if len(unpaired) > 4 else ""),
            fix="use models of the same architecture, or add --allow-unpaired: such weights stay as fine-tuned",
        )
    for name, stored in merge.finetuned.stored.items():
        own = merge.finetuned.name_of(name)
        for other in merge.others:
            if stored.is_float and other.find(own) is not None:
                other.need(own, stored.shape)


def matrices(merge: FullMerge, name: str) -> list[Matrix]:
    """What of a tensor is merged: nothing, itself, or each matrix of a stack.

    For methods with a criterion these are the matrices outside embedding and head, which are known by a dimension of
    the vocabulary's size; otherwise every floating tensor.
    """
    stored = merge.finetuned.stored[name]
    others = [other.find(merge.finetuned.name_of(name)) for other in merge.others]
    if not stored.is_float or any(other is None for other in others):
        return []
    found = dict(zip((id(model) for model in merge.others), others, strict=True))
    safe = found[id(merge.safe)] if merge.safe else None
    base = found[id(merge.base)] if merge.base else None
    direction = None
    if merge.models:
        vocabulary = text_setting(merge.finetuned.config, "vocab_size")
        if len(stored.shape) not in (2, 3) or vocabulary in stored.shape[-2:]:
            return []
        aligned, unaligned = (found[id(model)] for model in merge.models)
        assert aligned is not None
        assert unaligned is not None
        direction = (aligned, unaligned)
    transposed = merge.models is not None and merge.finetuned.is_transposed(name)
    if len(stored.shape) == 3:
        return [Matrix(f"{name}[{i}]", i, stored, safe, base, direction, transposed) for i in range(stored.shape[0])]
    return [Matrix(name, None, stored, safe, base, direction, transposed)]


def measure_matrix(merge: FullMerge, matrix: Matrix) -> tuple[LayerRecord, list[Tensor], Tensor | None]:
    """The cosine and the norms of a matrix; also V and the fine-tuned change, as far as they were read.

    V is in blocks of rows of ``[out, in]``, so that C acts on the output side however the weight is stored; the change
    is as it is stored.
    """
    if matrix.direction is None:
        return record_of(matrix.name, "merged"), [], None
    D = matrix.change(matrix.finetuned, merge.workers)
    needs_V = matrix.name not in merge.known or merge.rule.repair.takes_direction
    V = _differences(*matrix.direction, matrix.index, merge.workers) if needs_V else []
    if V and matrix.transposed:
        V = [torch.cat(V).T.contiguous()]
    known = merge.known.get(matrix.name)
    rho, v_norm = known if known is not None else project_dense(V, D.T if matrix.transposed else D)
    D_norm = float(torch.linalg.vector_norm(D, dtype=torch.float64))
    record = record_of(matrix.name, "kept", rho=rho, norm_finetuned=D_norm, norm_alignment=v_norm)
    return record, V, D


def report_full(merge: FullMerge, threshold: float) -> list[LayerRecord]:
    """The records of what a merge at a threshold would do; nothing is written."""
    records = []
    names = [tensor.name for tensor in _plan(merge)]
    with Progress("measuring", total=len(names), unit="tensors") as progress:
        for name in names:
            for matrix in matrices(merge, name):
                record, _, _ = measure_matrix(merge, matrix)
                below = record.rho is not None and merge.rule.is_below(record.rho, threshold)
                records.append(_decided(merge, record, threshold, below=below))
            progress.advance()
    return records


def write_full(merge: FullMerge, targets: Sequence[Target], max_shard_bytes: int) -> None:
    """Merge into full models, one for each target, in one pass; fills the targets' records.

    Raises:
        InputError: weights cannot be read or are not finite.
    """
    plan = _plan(merge)
    with ExitStack() as stack:
        files = [stack.enter_context(ShardedFiles(target.directory, plan, max_shard_bytes)) for target in targets]
        progress = stack.enter_context(Progress("merging", total=len(plan), unit="tensors"))
        for tensor in plan:
            for file in files:
                file.begin(tensor.name, tensor.dtype, tensor.shape)
            found = matrices(merge, tensor.name)
            for matrix in found:
                _write_matrix(merge, matrix, tensor.dtype, targets, files)
            if not found:
                _copy(merge, tensor, targets, files)
            progress.advance()


def _plan(merge: FullMerge) -> list[PlannedTensor]:
    stored = merge.finetuned.stored
    return writing_order([PlannedTensor(name, item.torch_dtype, item.shape) for name, item in stored.items()])


def _copy(merge: FullMerge, tensor: PlannedTensor, targets: Sequence[Target], files: Sequence[ShardedFiles]) -> None:
    for rows in read_blocks(merge.finetuned.stored[tensor.name], merge.workers):
        for file in files:
            file.write(rows)
    for target in targets:
        target.records.append(record_of(tensor.name, "copied"))


def _write_matrix(
    merge: FullMerge, matrix: Matrix, dtype: torch.dtype, targets: Sequence[Target], files: Sequence[ShardedFiles]
) -> None:
    record, V, D = measure_matrix(merge, matrix)
    decided = [
        target.threshold is None or (record.rho is not None and merge.rule.is_below(record.rho, target.threshold))
        for target in targets
    ]
    parts = {below: _rows(merge, matrix, below, V, D) for below in set(decided)}
    errors, norms = dict.fromkeys(parts, 0.0), dict.fromkeys(parts, 0.0)
    for pieces in zip(*parts.values(), strict=True):
        stored = {}
        for below, exact in zip(parts, pieces, strict=True):
            stored[below] = exact.to(dtype)
            errors[below] += float(((stored[below].double() - exact.double()) ** 2).sum())
            norms[below] += float((exact.double() ** 2).sum())
        for below, file in zip(decided, files, strict=True):
            file.write(stored[below])
    for below, target in zip(decided, targets, strict=True):
        error = (errors[below] / norms[below]) ** 0.5 if norms[below] > 0 else 0.0
        target.records.append(_decided(merge, record, target.threshold, below=below, error=error))


def _decided(
    merge: FullMerge, record: LayerRecord, threshold: float | None, *, below: bool, error: float | None = None
) -> LayerRecord:
    """The row on a measured matrix, with what was done to it."""
    action = merge.rule.action(has_finetuned=True, has_safe=merge.safe is not None, below=below)
    return replace(record, action=action, error=error, threshold=threshold if record.rho is not None else None)


def _rows(merge: FullMerge, matrix: Matrix, below: bool, V: list[Tensor], D: Tensor | None) -> Iterator[Tensor]:
    """The rows of a merged or kept matrix in blocks: the fine-tuned dtype if kept, else float32."""
    stored, weights = matrix.finetuned, merge.rule.weights
    on_weights = merge.rule.function("weights")
    if not below or (on_weights and weights == (1.0, 0.0)):
        yield from _read(merge, matrix, [stored])
        return
    if on_weights and not merge.rule.repair.needs_base(weights):
        assert matrix.safe is not None
        for finetuned, safe in _read(merge, matrix, [stored, matrix.safe], together=True):
            yield on_weights(finetuned, safe, weights)
        return
    assert matrix.base is not None
    total = _merged_change(merge, matrix, V, D)
    start = 0
    for base in _read(merge, matrix, [matrix.base]):
        rows = base if base.dim() == 2 else base.reshape(1, -1)
        yield (rows.float() + total[start : start + rows.shape[0]]).reshape(base.shape)
        start += rows.shape[0]


def _merged_change(merge: FullMerge, matrix: Matrix, V: list[Tensor], D: Tensor | None) -> Tensor:
    """``[rows, columns]`` float32: the change of the merged weight from the base; ``D`` is overwritten."""
    D = D if D is not None else _flat_change(merge, matrix, matrix.finetuned)
    S = _flat_change(merge, matrix, matrix.safe) if matrix.safe is not None else None
    if matrix.transposed and merge.rule.repair.takes_direction:
        S_out_in = S.T if S is not None else None
        return merge_dense(merge.rule, matrix.name, weighted(merge.rule, D.T, S_out_in), V).T
    # Other methods work element by element, and the order of the elements is that of the stored weight.
    return merge_dense(merge.rule, matrix.name, weighted(merge.rule, D, S), V)


def _flat_change(merge: FullMerge, matrix: Matrix, of: Stored) -> Tensor:
    if has_rows(of.shape):
        return matrix.change(of, merge.workers)
    assert matrix.base is not None
    change = of.read().float() - matrix.base.read().float()
    if not bool(torch.isfinite(change.sum())):
        check_finite(of.read(), of)
    return change.reshape(1, -1)


def _read(merge: FullMerge, matrix: Matrix, sources: Sequence[Stored], *, together: bool = False) -> Iterator[Any]:
    """Rows of one tensor, or of several together, in blocks, checked to be finite."""

    def read(start: int, stop: int) -> list[Tensor]:
        whole = not has_rows(sources[0].shape)
        rows = [source.read() if whole else source.read(start, stop, index=matrix.index) for source in sources]
        for tensor, source in zip(rows, sources, strict=True):
            check_finite(tensor.float(), source)
        return rows

    reads = (lambda start=start, stop=stop: read(start, stop) for start, stop in row_blocks(sources[0].shape))
    with read_ahead(reads, merge.workers) as blocks:
        for rows in blocks:
            yield rows if together else rows[0]
