"""The results of a merge, one for each threshold, made in one pass and described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.manifest import InputRecord
from pipelines.configs.merge import DEFAULT_DENSITY, MergeConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.making import Made, Wanted, make_all
from pipelines.merging.criterion import threshold_for
from pipelines.merging.layer_records import LAYERS_FILE, LayerRecord, figures, read_records, write_records
from pipelines.merging.opened import OpenedMerge, open_inputs
from pipelines.merging.output import write_card
from pipelines.merging.plots import draw_rho
from pipelines.merging.rule import Rule
from pipelines.merging.sources import Sources, check_unchanged, named_sources
from pipelines.merging.target import Target
from pipelines.models.reference import MODEL_FOLDER

REPORT_KIND = "merge-report"


@dataclass(frozen=True)
class Merged(Made):
    """One result, with the rows on its layers."""

    records: list[LayerRecord]


@dataclass(frozen=True)
class MergeResult(Made):
    """What a merge made: one result, or one for each threshold of a sweep in directories below ``path``.

    Attributes:
        manifest: the manifest of the first result.
        up_to_date: whether all results were there already.
        merged: the results.
        unpaired: layers or tensors that have no counterpart in the other models.
    """

    merged: list[Merged]
    unpaired: list[str]


def one_for_each_threshold(config: MergeConfig) -> list[MergeConfig]:
    """The configuration of each result: itself, or one for each threshold in a directory of its own."""
    if len(config.cos_threshold) == 1:
        return [config]
    return [
        config.model_copy(update={"cos_threshold": [value], "out": config.out / f"cos-{value:g}"})
        for value in config.cos_threshold
    ]


def rule_of(config: MergeConfig) -> Rule:
    """The rule by which layers are merged, as the options say."""
    return Rule(
        repair=config.repair,
        weights=(config.weights[0], config.weights[1]),
        density=config.density if config.density is not None else DEFAULT_DENSITY,
        seed=config.seed,
        original=config.original_semantics,
    )


def open_merge(config: MergeConfig, sources: Sources) -> OpenedMerge:
    """The inputs opened and paired."""
    return open_inputs(
        sources,
        rule_of(config),
        into_model=config.output == "model",
        max_rank=config.rank,
        max_shard_bytes=round(config.max_shard_gb * 1e9),
        allow_unpaired=config.allow_unpaired,
        workers=config.workers,
    )


def thresholds_of(config: MergeConfig, records: Sequence[LayerRecord]) -> list[float]:
    """The thresholds that are given, or the one that merges the asked share of layers."""
    rhos = [record.rho for record in records if record.rho is not None]
    if config.threshold == "fixed" or not rhos:
        return config.cos_threshold
    assert config.merge_fraction is not None
    return [threshold_for(rhos, config.merge_fraction)]


def wanted_results(config: MergeConfig, inputs: list[InputRecord]) -> list[Wanted]:
    """The artifacts that are asked for, one for each threshold."""
    kind = REPORT_KIND if config.output == "report" else "model"
    return [Wanted(each.out, kind, each, inputs, overwrite=config.overwrite) for each in one_for_each_threshold(config)]


def make_results(opened: OpenedMerge, config: MergeConfig, sources: Sources, wanted: Sequence[Wanted]) -> MergeResult:
    """The results, those that are not there yet made in one pass."""
    by_path = {each.out: each for each in one_for_each_threshold(config)}

    def write(writers: Mapping[Path, ArtifactWriter]) -> None:
        _write(opened, config, sources, [(by_path[path], writer) for path, writer in writers.items()])

    made = make_all(wanted, write)
    merged = [Merged(each.path, each.manifest, each.up_to_date, read_records(each.path / LAYERS_FILE)) for each in made]
    up_to_date = all(each.up_to_date for each in made)
    return MergeResult(config.out, made[0].manifest, up_to_date, merged, opened.unpaired)


def _write(
    opened: OpenedMerge, config: MergeConfig, sources: Sources, to_do: Sequence[tuple[MergeConfig, ArtifactWriter]]
) -> None:
    """Write the results, all in one pass; a threshold that is to be chosen takes a pass of its own before it."""
    thresholds: list[float | None] = [each.cos_threshold[0] if config.needs_criterion else None for each, _ in to_do]
    if config.threshold == "auto":
        found = opened.report(config.cos_threshold[0])
        opened = opened.knowing(found)
        thresholds = list(thresholds_of(config, found))
    targets = [
        Target(threshold, writer.path / MODEL_FOLDER) for threshold, (_, writer) in zip(thresholds, to_do, strict=True)
    ]
    if config.output == "report":
        _report(opened, targets)
    else:
        for target in targets:
            target.directory.mkdir()
        opened.write(targets)
    check_unchanged(sources)
    for target, (each, writer) in zip(targets, to_do, strict=True):
        _describe(each, sources, target, writer)


def _report(opened: OpenedMerge, targets: Sequence[Target]) -> None:
    for target in targets:
        assert target.threshold is not None
        target.records.extend(opened.report(target.threshold))
        # The next threshold needs no second look at the weights.
        opened = opened.knowing(target.records)


def _describe(config: MergeConfig, sources: Sources, target: Target, writer: ArtifactWriter) -> None:
    write_records(writer.path / LAYERS_FILE, target.records)
    draw_rho(writer.path / "rho.png", target.records, [] if target.threshold is None else [target.threshold])
    writer.summary = {"method": config.method, **figures(target.records)}
    (writer.path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    if target.directory.is_dir():
        rows = [(name, source.reference) for name, source in named_sources(sources)]
        rows += [(name.replace("_", " "), str(value)) for name, value in writer.summary.items()]
        is_adapter = sources.finetuned.is_adapter and config.output != "model"
        write_card(target.directory, config.out.name, rows, sources.base or sources.finetuned, is_adapter=is_adapter)
