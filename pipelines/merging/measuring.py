"""Layers of two adapters read in order, with their cosines, in one pass over the weights."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipelines.core.progress import Progress
from pipelines.merging import original
from pipelines.merging.adapters import Adapter, common_dtype
from pipelines.merging.criterion import Projection, cosine, project
from pipelines.merging.factors import Factors, norm
from pipelines.merging.layer_records import LayerRecord
from pipelines.merging.layers import Layer, depth_of, type_of
from pipelines.merging.rule import Change, Rule, merge_layer
from pipelines.weights.read_ahead import Job, read_ahead


@dataclass(frozen=True)
class Measured:
    """A layer with its changes in memory and what the criterion says.

    Attributes:
        layer: which.
        finetuned: the fine-tuned change.
        safe: the safe change.
        rho: cos(C D, D); None where there is no direction.
        v_norm: of the direction.
        projection: ``C B``, where a pass over the weights was made.
    """

    layer: Layer
    finetuned: Factors | None
    safe: Factors | None
    rho: float | None = None
    v_norm: float | None = None
    projection: Projection | None = None


@dataclass
class Target:
    """One result of a merge.

    Attributes:
        threshold: below which layers are repaired; None for methods without criterion.
        directory: where its weights go.
        records: what was done, filled while merging.
        shapes: rank and scaling of each module of an output adapter, filled while merging.
    """

    threshold: float | None
    directory: Path
    records: list[LayerRecord] = field(default_factory=list)
    shapes: dict[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterMerge:
    """Two adapters and how they are merged.

    Attributes:
        finetuned: what is to be repaired.
        safe: what is merged in; None for SafeLoRA.
        layers: of both, paired.
        rule: how.
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
        """Of the output adapter's factors."""
        if self.rule.original:
            return torch.float32
        return common_dtype([self.finetuned, *([self.safe] if self.safe else [])])


def measure(merge: AdapterMerge, layers: Sequence[Layer]) -> Generator[Measured, None, None]:
    """Each layer with its changes and its cosine, in order; the weights are read once, ahead of the work.

    Raises:
        InputError: weights cannot be read or are not finite.
    """
    jobs = (job for layer in layers for job in _jobs(merge, layer))
    with (
        read_ahead(jobs, merge.workers) as results,
        Progress("merging", total=len(layers), unit="layers") as progress,
    ):
        for layer in layers:
            yield _measure(merge, layer, results)
            progress.advance()


def _reads_direction(merge: AdapterMerge, layer: Layer) -> bool:
    # Known cosines need no second pass, but the projection that SafeLoRA stores is not kept from the first.
    return layer.direction is not None and (layer.name not in merge.known or merge.rule.combination is None)


def _jobs(merge: AdapterMerge, layer: Layer) -> Iterator[Job]:
    yield lambda: (layer.finetuned.read() if layer.finetuned else None, layer.safe.read() if layer.safe else None)
    if layer.direction is None or not _reads_direction(merge, layer):
        return
    if merge.rule.original:
        yield layer.direction.whole
    else:
        yield from layer.direction.jobs()


def _measure(merge: AdapterMerge, layer: Layer, results: Iterator[Any]) -> Measured:
    finetuned, safe = next(results)
    if layer.direction is None:
        return Measured(layer, finetuned, safe)
    if not _reads_direction(merge, layer):
        return Measured(layer, finetuned, safe, *merge.known[layer.name])
    if merge.rule.original:
        V = next(results)
        C = original.projector(V)
        projection = Projection(original.project_factor(C, finetuned).B, float(torch.norm(V)))
        return Measured(layer, finetuned, safe, original.rounded_cosine(C, finetuned), projection.v_norm, projection)
    direction = layer.direction
    blocks = (next(results) for _ in range(direction.num_jobs))
    projection = project(blocks, finetuned.B, transposed=direction.transposed)
    return Measured(layer, finetuned, safe, cosine(finetuned, projection.CB), projection.v_norm, projection)


def record_of(measured: Measured, threshold: float | None, action: str, **more: Any) -> LayerRecord:
    """The report's row on a layer."""
    layer, finetuned, safe = measured.layer, measured.finetuned, measured.safe
    return LayerRecord(
        layer=layer.name,
        module_type=type_of(layer.name),
        depth=depth_of(layer.name),
        rho=measured.rho,
        threshold=threshold if measured.rho is not None else None,
        action=action,
        norm_finetuned=norm(finetuned) if finetuned else None,
        norm_safe=norm(safe) if safe else None,
        norm_alignment=measured.v_norm,
        rank_finetuned=finetuned.rank if finetuned else None,
        rank_safe=safe.rank if safe else None,
        **more,
    )


def report_only(merge: AdapterMerge, threshold: float) -> list[LayerRecord]:
    """What would be done at a threshold, without a result."""
    word = "projected" if merge.rule.combination is None else "merged"
    records = []
    for measured in measure(merge, merge.layers):
        below = measured.rho is not None and merge.rule.is_below(measured.rho, threshold)
        action = "safe only" if measured.finetuned is None else word if below else "kept"
        if action == "merged" and measured.safe is None:
            action = "kept"
        records.append(record_of(measured, threshold, action))
    return records


class Changes:
    """The changes of one layer: one for layers that are repaired and one for those that are not."""

    def __init__(self, rule: Rule, measured: Measured) -> None:
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


def copied_record(name: str) -> LayerRecord:
    """The report's row on a tensor that stays as it is on the fine-tuned side."""
    return LayerRecord(name, type_of(name), depth_of(name), None, None, "copied")
