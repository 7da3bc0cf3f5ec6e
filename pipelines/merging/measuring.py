"""Layers of two adapters read in order, with their cosines, in one pass over the weights."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pipelines.core.progress import Progress
from pipelines.merging import original
from pipelines.merging.adapters import Adapter, common_dtype
from pipelines.merging.criterion import Projection, cosine, project
from pipelines.merging.factors import Factors, norm
from pipelines.merging.layer_records import LayerRecord, record_of
from pipelines.merging.layers import Layer
from pipelines.merging.rule import Change, Rule, merge_layer
from pipelines.weights.read_ahead import Read, read_ahead


@dataclass(frozen=True)
class MeasuredLayer:
    """A layer with its changes in memory and what the criterion says.

    Attributes:
        layer: the layer that was measured.
        finetuned: the fine-tuned change.
        safe: the safe change.
        rho: cos(C D, D); None where there is no direction.
        v_norm: the norm of the direction V.
        projection: ``C B``, where a pass over the weights was made.
    """

    layer: Layer
    finetuned: Factors | None
    safe: Factors | None
    rho: float | None = None
    v_norm: float | None = None
    projection: Projection | None = None


@dataclass(frozen=True)
class AdapterMerge:
    """Two adapters and how they are merged.

    Attributes:
        finetuned: the adapter that is to be repaired.
        safe: the adapter that is merged in; None where the method takes none.
        layers: the layers of both adapters, paired.
        rule: the method, its weights, and when a layer is merged.
        workers: threads that read ahead.
        known: rho and the norm of V by layer, from an earlier pass.
    """

    finetuned: Adapter
    safe: Adapter | None
    layers: Sequence[Layer]
    rule: Rule
    workers: int
    known: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the output adapter's factors."""
        if self.rule.original:
            return torch.float32
        return common_dtype([self.finetuned, *([self.safe] if self.safe else [])])


def measure(merge: AdapterMerge, layers: Sequence[Layer]) -> Generator[MeasuredLayer, None, None]:
    """Each layer with its changes and its cosine, in order; the weights are read once, ahead of the work.

    Raises:
        InputError: weights cannot be read or are not finite.
    """
    reads = (read for layer in layers for read in _reads(merge, layer))
    with (
        read_ahead(reads, merge.workers) as results,
        Progress("merging", total=len(layers), unit="layers") as progress,
    ):
        for layer in layers:
            yield _measure(merge, layer, results)
            progress.advance()


def _reads_direction(merge: AdapterMerge, layer: Layer) -> bool:
    # Known cosines need no second pass, but the projection that some methods store is not kept from the first.
    return layer.direction is not None and (layer.name not in merge.known or merge.rule.repair.takes_direction)


def _reads(merge: AdapterMerge, layer: Layer) -> Iterator[Read]:
    yield lambda: (layer.finetuned.read() if layer.finetuned else None, layer.safe.read() if layer.safe else None)
    if layer.direction is None or not _reads_direction(merge, layer):
        return
    if merge.rule.original:
        yield layer.direction.whole
    else:
        yield from layer.direction.reads()


def _measure(merge: AdapterMerge, layer: Layer, results: Iterator[Any]) -> MeasuredLayer:
    finetuned, safe = next(results)
    if layer.direction is None:
        return MeasuredLayer(layer, finetuned, safe)
    if not _reads_direction(merge, layer):
        return MeasuredLayer(layer, finetuned, safe, *merge.known[layer.name])
    if merge.rule.original:
        V = next(results)
        C = original.projector(V)
        projection = Projection(original.project_factor(C, finetuned).B, float(torch.norm(V)))
        return MeasuredLayer(
            layer, finetuned, safe, original.rounded_cosine(C, finetuned), projection.v_norm, projection
        )
    direction = layer.direction
    blocks = (next(results) for _ in range(direction.num_reads))
    projection = project(blocks, finetuned.B, transposed=direction.transposed)
    return MeasuredLayer(layer, finetuned, safe, cosine(finetuned, projection.CB), projection.v_norm, projection)


def record_of_layer(measured: MeasuredLayer, threshold: float | None, action: str, **more: Any) -> LayerRecord:
    """The report's row on a layer."""
    finetuned, safe = measured.finetuned, measured.safe
    return record_of(
        measured.layer.name,
        action,
        rho=measured.rho,
        threshold=threshold,
        norm_finetuned=norm(finetuned) if finetuned else None,
        norm_safe=norm(safe) if safe else None,
        norm_alignment=measured.v_norm,
        rank_finetuned=finetuned.rank if finetuned else None,
        rank_safe=safe.rank if safe else None,
        **more,
    )


def report_adapters(merge: AdapterMerge, threshold: float) -> list[LayerRecord]:
    """The records of what a merge at a threshold would do; nothing is written."""
    records = []
    for measured in measure(merge, merge.layers):
        action = merge.rule.action(
            has_finetuned=measured.finetuned is not None,
            has_safe=measured.safe is not None,
            below=measured.rho is not None and merge.rule.is_below(measured.rho, threshold),
        )
        records.append(record_of_layer(measured, threshold, action))
    return records


class Changes:
    """The changes of one layer: one for layers that are repaired and one for those that are not."""

    def __init__(self, rule: Rule, measured: MeasuredLayer) -> None:
        self._rule, self._measured = rule, measured
        self._made: dict[bool, Change] = {}

    def at(self, threshold: float | None) -> tuple[bool, Change]:
        """Whether the layer is repaired at a threshold (always, if there is none), and what becomes of it."""
        found = self._measured
        below = threshold is None or (found.rho is not None and self._rule.is_below(found.rho, threshold))
        if below not in self._made:
            self._made[below] = merge_layer(
                self._rule, found.layer.name, found.finetuned, found.safe, found.projection, below=below
            )
        return below, self._made[below]
