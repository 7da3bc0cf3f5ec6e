"""The work of ``ogpsa build-mask``: scores of all weights, the choice among them, bits written and described."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from data_registry.core.errors import ArtifactError, InputError
from data_registry.core.manifest import InputRecord, Manifest, as_input, open_artifact
from data_registry.prepared import load_prepared
from pipelines.basis.objectives.finding import reference_loss
from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import is_main
from pipelines.core.option_files import option_file_inputs
from pipelines.masks.description import DESCRIPTION_FILE, MaskDescription
from pipelines.masks.gradients import STEM, write_gradient_scores
from pipelines.masks.opening import OpenMask, check_shapes, open_mask
from pipelines.masks.parameters import Parameter, eligible, parameters_of
from pipelines.masks.plots import draw_shares
from pipelines.masks.principal import write_principal_scores
from pipelines.masks.records import LAYERS_FILE, TensorRecord, write_records
from pipelines.masks.scores import Change, Magnitude, Random, Rows, Scores
from pipelines.masks.selecting import Choice, Selection
from pipelines.masks.writing import OtherMasks, cut_records, selection_of, write_bits
from pipelines.models.reference import ModelSource, resolve_model
from pipelines.weights.stored import Checkpoint, open_checkpoint
from pipelines.weights.writing import natural

CHANGE_FOLDER = "change"
PLOT_FILE = "shares.png"
_SCORES_FOLDER = "scores"
_HALF = ("BF16", "F16")


def mask_inputs(config: BuildMaskConfig, source: ModelSource) -> list[InputRecord]:
    """Records of all that a mask is made from.

    Raises:
        OgpsaError: an input cannot be used; the message says which and what to do.
    """
    if source.is_adapter:
        raise InputError(
            f"'{config.model}' is an adapter; a mask chooses among the weights of a full model",
            fix="fold the adapter into its base first:  ogpsa merge ADAPTER --method linear --output model",
        )
    records = [source.input_record()]
    if config.change is not None:
        records.append(as_input("change", config.change, _warm_up(config, config.change, source)))
    if config.end is not None:
        records.append(_end(config).input_record("end"))
    if config.data is not None:
        task = reference_loss(config.objective).task
        records.append(as_input("data", config.data, load_prepared(config.data, task=task)[1]))
    for role, masks in _others(config):
        records += [as_input(role, mask.directory, mask.manifest) for mask in masks]
    return [*records, *option_file_inputs({"chat template": config.chat_template, "DeepSpeed file": config.deepspeed})]


def _warm_up(config: BuildMaskConfig, run: Path, source: ModelSource) -> Manifest:
    manifest = open_artifact(run, "run")
    if not any(name.startswith(f"{CHANGE_FOLDER}/") for name in manifest.files):
        raise InputError(
            f"the run '{run}' has not tracked its change, and saved weights do not tell it: steps that are small "
            "beside a weight vanish where it is rounded to bf16",
            fix="train the warm-up again with --track-change",
        )
    start = next(record for record in manifest.inputs if record.role == "model")
    if start.fingerprint != source.input_record().fingerprint:
        raise ArtifactError(
            f"the run '{run}' started from another model than '{config.model}'",
            where=f"it started from '{start.path}', fingerprint {start.fingerprint[:16]}",
            fix="name the model that the warm-up started from; a mask holds for what is trained from it too",
        )
    return manifest


def _end(config: BuildMaskConfig) -> ModelSource:
    assert config.end is not None
    end = resolve_model(config.end)
    if end.is_adapter:
        raise InputError(f"--end '{config.end}' is an adapter; two full models are compared")
    return end


def _others(config: BuildMaskConfig) -> list[tuple[str, list[OpenMask]]]:
    given = (("union", config.union), ("intersect", config.intersect), ("minus", config.minus))
    return [(role, [open_mask(path) for path in paths]) for role, paths in given]


def choice_of(config: BuildMaskConfig) -> Choice:
    """Which weights the options choose."""
    return Choice(config.ratio, config.scope, config.skip_top, config.order)


def build(writer: ArtifactWriter, config: BuildMaskConfig, source: ModelSource, device: torch.device) -> None:
    """Fill the artifact. Collective: gradients are computed by all processes, everything else by the first.

    Raises:
        OgpsaError: the inputs do not fit each other, scores cannot tell weights apart, or no weight is chosen.
    """
    folder = writer.path / _SCORES_FOLDER
    shapes: dict[str, tuple[int, ...]] | None = None
    if config.needs_gradients:
        shapes = write_gradient_scores(config, source, device, folder)
    if is_main():
        _choose(writer, config, source, shapes, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _choose(
    writer: ArtifactWriter,
    config: BuildMaskConfig,
    source: ModelSource,
    shapes: dict[str, tuple[int, ...]] | None,
    folder: Path,
) -> None:
    checkpoint = open_checkpoint(source)
    parameters = (
        parameters_of(checkpoint)
        if shapes is None
        else [Parameter(name, shapes[name]) for name in sorted(shapes, key=natural)]
    )
    among = eligible(parameters, config.include, config.exclude)
    architecture = str((checkpoint.config.get("architectures") or ["a model"])[0])
    others = _others(config)
    for _, masks in others:
        for mask in masks:
            check_shapes(mask, {each.name: each.shape for each in parameters}, architecture)
    scores = _scores(config, checkpoint, parameters, folder)
    with selection_of(scores, among, choice_of(config), config.workers) as chosen:
        if isinstance(scores, Change):
            _check_rounding(scores, among, chosen)
        joined = OtherMasks(**{role: [mask.stored for mask in masks] for role, masks in others})
        records = write_bits(writer.path, parameters, chosen, joined)
    source.check_unchanged()
    if not sum(record.selected for record in records):
        raise InputError(
            "the mask would choose no weight: " + _why_empty(chosen),
            fix="raise --ratio, or look at the scores of the other masks:  ogpsa inspect MASK",
        )
    _describe(writer, config, architecture, parameters, chosen, records)


def _why_empty(chosen: Selection) -> str:
    if chosen.num_wanted == 0:
        return "--ratio of so few weights is none"
    if chosen.num_chosen == 0:
        return "all scores are 0"
    return f"the other masks leave none of the {chosen.num_chosen:,} that were chosen by score"


def _scores(config: BuildMaskConfig, checkpoint: Checkpoint, parameters: Sequence[Parameter], folder: Path) -> Scores:
    if config.needs_gradients:
        return Rows(folder, STEM)
    if config.score == "principal":
        write_principal_scores(checkpoint, parameters, config.rank, folder)
        return Rows(folder, STEM)
    if config.score == "magnitude":
        return Magnitude(checkpoint)
    if config.score == "random":
        return Random(config.seed)
    if config.change is not None:
        rows = Rows(config.change / CHANGE_FOLDER, CHANGE_FOLDER)
        _check_change(config.change, rows, parameters)
        return rows
    return Change(checkpoint, open_checkpoint(_end(config)))


def _check_change(run: Path, rows: Rows, parameters: Sequence[Parameter]) -> None:
    there, here = rows.numels(), {parameter.name: parameter.numel for parameter in parameters}
    if there == here:
        return
    name = next(name for name in {**here, **there} if here.get(name) != there.get(name))
    raise InputError(
        f"the run '{run}' tracked the change of {len(there)} tensors, and the model has {len(here)} parameters",
        where=f"{name} has {here.get(name, 'no')} weights in the model and {there.get(name, 'no')} in the run's change",
        fix="train the warm-up without adapters (--lora-rank 0)",
    )


def _check_rounding(scores: Change, parameters: Sequence[Parameter], chosen: Selection) -> None:
    """Refuse to choose by differences of rounded weights, most of which the rounding has made 0."""
    for parameter in parameters:
        dtypes = [each.need(parameter.name).dtype for each in (scores.start, scores.end)]
        if dtypes[0] != dtypes[1]:
            raise InputError(
                f"{parameter.name} is stored as {dtypes[0]} in '{scores.start.source.reference}' and as {dtypes[1]} in "
                f"'{scores.end.source.reference}': their difference would be that of rounding",
                fix="use a warm-up run with --track-change, or two checkpoints in fp32",
            )
    half = [each for each in parameters if scores.end.need(each.name).dtype in _HALF]
    zeros, numel = sum(chosen.found[each.name].zeros for each in half), sum(each.numel for each in half)
    if half and zeros > (1 - chosen.choice.ratio) * numel:
        raise InputError(
            f"{zeros / numel:.1%} of the differences are exactly 0, because the weights are stored in "
            f"{scores.end.need(half[0].name).dtype}: what is left would be chosen by rounding",
            where=scores.end.source.reference,
            fix="train the warm-up with --track-change, and name the run with --change",
        )


def _describe(
    writer: ArtifactWriter,
    config: BuildMaskConfig,
    architecture: str,
    parameters: Sequence[Parameter],
    chosen: Selection,
    records: Sequence[TensorRecord],
) -> None:
    total = sum(parameter.numel for parameter in parameters)
    selected = sum(record.selected for record in records)
    model = writer.inputs[0]
    description = MaskDescription(
        score=config.score,
        score_options=_score_options(config),
        scope=config.scope,
        ratio=config.ratio,
        skip_top=config.skip_top,
        order=config.order,
        eligible=[parameter.name for parameter in chosen.parameters],
        num_eligible=sum(parameter.numel for parameter in chosen.parameters),
        num_parameters=total,
        num_wanted=chosen.num_wanted,
        num_chosen=chosen.num_chosen,
        num_selected=selected,
        cuts=cut_records(chosen, skipped=False),
        skipped=cut_records(chosen, skipped=True),
        others=[
            {"role": record.role, "path": record.path, "fingerprint": record.fingerprint}
            for record in writer.inputs
            if record.role in ("union", "intersect", "minus")
        ],
        model=model.path,
        model_fingerprint=model.fingerprint,
        architecture=architecture,
        shapes={parameter.name: list(parameter.shape) for parameter in parameters},
    )
    (writer.path / DESCRIPTION_FILE).write_text(description.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (writer.path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    write_records(writer.path / LAYERS_FILE, records)
    draw_shares(writer.path / PLOT_FILE, records, selected / total)
    writer.summary = summary_of(description, records)


def summary_of(description: MaskDescription, records: Sequence[TensorRecord]) -> dict[str, object]:
    """The figures for the manifest."""
    touched = sum(record.selected > 0 for record in records)
    summary: dict[str, object] = {
        "score": description.score,
        "scope": description.scope,
        "selected": description.num_selected,
        "parameters": description.num_parameters,
        "share": description.num_selected / description.num_parameters,
        "tensors": f"{touched} of {len(records)}",
    }
    if description.scope == "global" and description.cuts:
        summary["threshold"] = float.fromhex(description.cuts[0].threshold)
    missing = description.num_wanted - description.num_chosen
    if missing:
        summary["short_of_the_ratio"] = missing
    return summary


def _score_options(config: BuildMaskConfig) -> dict[str, object]:
    names = {
        "random": ("seed",),
        "principal": ("rank",),
        **dict.fromkeys(
            ("gradient", "fisher", "snip"), ("objective", "beta", "num_samples", "batch_size", "max_length", "seed")
        ),
    }.get(config.score, ())
    return {name: getattr(config, name) for name in names}


def eligible_parameters(config: BuildMaskConfig, source: ModelSource) -> list[Parameter]:
    """The parameters among whose weights would be chosen, for the plan.

    Raises:
        ConfigError: a pattern names nothing.
        InputError: the model cannot be read.
    """
    return eligible(parameters_of(open_checkpoint(source)), config.include, config.exclude)
