"""The inputs of a merge opened and paired, adapters or full models behind one face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from data_registry.core.errors import InputError
from pipelines.merging.adapter_merge import write_adapters
from pipelines.merging.adapters import Adapter, open_adapter
from pipelines.merging.full_merge import FullMerge, check_pairs, report_full, unpaired_tensors, write_full
from pipelines.merging.layer_records import LayerRecord
from pipelines.merging.layers import pair_adapters, unpaired_modules
from pipelines.merging.measuring import AdapterMerge, report_adapters
from pipelines.merging.model_merge import write_models
from pipelines.merging.original import scaling_of_sum
from pipelines.merging.output import copy_model_config, copy_tokenizer, write_adapter_config
from pipelines.merging.rule import Rule
from pipelines.merging.sources import Sources
from pipelines.merging.target import Target
from pipelines.models.reference import ModelSource
from pipelines.weights.stored import Checkpoint, open_checkpoint


class OpenedMerge(Protocol):
    """A merge that is ready to run."""

    @property
    def unpaired(self) -> list[str]:
        """The layers or tensors that not all inputs have, in words."""

    def report(self, threshold: float) -> list[LayerRecord]:
        """The records of what a merge at a threshold would do; it reads the weights and writes nothing."""

    def knowing(self, records: Sequence[LayerRecord]) -> OpenedMerge:
        """The same merge, which does not compute again what an earlier report has."""

    def write(self, targets: Sequence[Target]) -> None:
        """Write the results with all that goes with the weights; fills the targets' records."""


@dataclass(frozen=True)
class OpenedAdapters:
    """A merge of adapters into an adapter, or into the base model where there is a ``base``."""

    merge: AdapterMerge
    source: ModelSource
    base: Checkpoint | None
    max_rank: int | None
    max_shard_bytes: int

    @property
    def unpaired(self) -> list[str]:
        """See :class:`OpenedMerge`."""
        return unpaired_modules(self.merge.finetuned, self.merge.safe)

    def report(self, threshold: float) -> list[LayerRecord]:
        """See :class:`OpenedMerge`."""
        return report_adapters(self.merge, threshold)

    def knowing(self, records: Sequence[LayerRecord]) -> OpenedAdapters:
        """See :class:`OpenedMerge`."""
        return replace(self, merge=replace(self.merge, known=_known(records)))

    def write(self, targets: Sequence[Target]) -> None:
        """See :class:`OpenedMerge`."""
        if self.base is not None:
            write_models(self.merge, self.base, targets, self.max_shard_bytes)
        else:
            write_adapters(self.merge, targets, self.max_rank)
        for target in targets:
            copy_tokenizer(self.merge.finetuned.source, target.directory)
            if self.base is not None:
                copy_model_config(self.source, target.directory)
            else:
                write_adapter_config(target.directory, self.merge.finetuned, self.source, target.shapes)


@dataclass(frozen=True)
class OpenedModels:
    """A merge of full models."""

    merge: FullMerge
    max_shard_bytes: int

    @property
    def unpaired(self) -> list[str]:
        """See :class:`OpenedMerge`."""
        return unpaired_tensors(self.merge)

    def report(self, threshold: float) -> list[LayerRecord]:
        """See :class:`OpenedMerge`."""
        return report_full(self.merge, threshold)

    def knowing(self, records: Sequence[LayerRecord]) -> OpenedModels:
        """See :class:`OpenedMerge`."""
        return replace(self, merge=replace(self.merge, known=_known(records)))

    def write(self, targets: Sequence[Target]) -> None:
        """See :class:`OpenedMerge`."""
        write_full(self.merge, targets, self.max_shard_bytes)
        for target in targets:
            copy_tokenizer(self.merge.finetuned.source, target.directory)
            copy_model_config(self.merge.finetuned.source, target.directory)


def _known(records: Sequence[LayerRecord]) -> Mapping[str, tuple[float, float]]:
    return {record.layer: (record.rho, record.norm_alignment or 0.0) for record in records if record.rho is not None}


def open_inputs(
    sources: Sources,
    rule: Rule,
    *,
    into_model: bool,
    max_rank: int | None,
    max_shard_bytes: int,
    allow_unpaired: bool,
    workers: int,
) -> OpenedMerge:
    """Open and pair the inputs, without reading weights.

    Args:
        sources: the inputs, adapters or full models.
        rule: the rule by which they are merged.
        into_model: whether to write the base model with adapters merged in.
        max_rank: the highest LoRA rank of an output adapter.
        max_shard_bytes: the largest size of a weight file of an output model, in bytes.
        allow_unpaired: whether to go on where a layer is on one side only.
        workers: threads that read ahead.

    Raises:
        InputError: an input is missing, damaged, pickled or of a sort that cannot be merged, or they do not fit.
    """
    opened: dict[str, Checkpoint] = {}

    def weights(source: ModelSource | None) -> Checkpoint | None:
        if source is None:
            return None
        if source.is_adapter:
            raise InputError(
                f"'{source.reference}' is an adapter, where a full model is needed",
                fix="name the model, or merge the adapter into it first:  ogpsa merge ... --output model",
            )
        if source.path_or_id not in opened:
            opened[source.path_or_id] = open_checkpoint(source)
        return opened[source.path_or_id]

    aligned, unaligned = weights(sources.aligned), weights(sources.unaligned)
    models = (aligned, unaligned) if aligned and unaligned else None
    if not sources.finetuned.is_adapter:
        finetuned = weights(sources.finetuned)
        assert finetuned is not None
        full = FullMerge(finetuned, weights(sources.safe), weights(sources.base), models, rule, workers)
        check_pairs(full, allow_unpaired=allow_unpaired)
        return OpenedModels(full, max_shard_bytes)
    adapter, safe = _open_adapters(sources)
    layers = pair_adapters(adapter, safe, models, allow_unpaired=allow_unpaired)
    assert sources.base is not None
    base = weights(sources.base) if into_model else None
    merge = AdapterMerge(adapter, safe, layers, replace(rule, sum_scaling=scaling_of_sum(adapter.config)), workers)
    _check_ranks(merge)
    return OpenedAdapters(merge, sources.base, base, max_rank, max_shard_bytes)


def _open_adapters(sources: Sources) -> tuple[Adapter, Adapter | None]:
    finetuned, other = open_adapter(sources.finetuned), sources.safe
    if other is None:
        return finetuned, None
    if not other.is_adapter:
        raise InputError(
            f"'{other.reference}' is a full model and '{sources.finetuned.reference}' an adapter",
            fix="give two adapters, or two full models (an adapter becomes one with --output model)",
        )
    return finetuned, open_adapter(other)


def _check_ranks(merge: AdapterMerge) -> None:
    """Factors that are to be added must be of one shape."""
    for layer in merge.layers if merge.rule.adds_factors else ():
        if layer.finetuned and layer.safe and layer.finetuned.rank != layer.safe.rank:
            raise InputError(
                f"the published arithmetic adds factors, and those of '{layer.name}' have different ranks: "
                f"{layer.finetuned.rank} and {layer.safe.rank}",
                where=f"{layer.finetuned.A.file} and {layer.safe.A.file}",
                fix="leave --original-semantics out, or use adapters of one rank",
            )
