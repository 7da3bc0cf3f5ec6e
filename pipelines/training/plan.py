"""The plan of a training command for ``--dry-run``: steps, tokens, memory per rank, size of the basis."""

from __future__ import annotations

import math
from dataclasses import replace

from data_registry.prepared import SAMPLES, load_prepared
from pipelines.basis.reading import open_basis
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.job import world_size
from pipelines.engine.deepspeed_config import deepspeed_config, plan_text
from pipelines.masks.opening import open_mask
from pipelines.memory.estimate import Edits
from pipelines.memory.planning import Planner, Rows, Work, memory_rows, model_text, size
from pipelines.models.reference import ModelSource
from pipelines.token_weights.opening import open_token_weights
from pipelines.training.data.anchor_schedule import rows_per_step
from pipelines.training.data.plan import DataPlan
from pipelines.transforms.rounds import ROUND_ELEMENTS, ROUND_ELEMENTS_ON_CPU

_SCOPES = {"tensor": "", "layer": "a subspace for each layer, ", "global": "one subspace for all parameters, "}


def training_plan(config: TrainConfig, source: ModelSource, data: DataPlan) -> Rows:
    """The rows of the plan.

    Args:
        config: the command's options.
        source: the model.
        data: the plan of the data that it is trained on.
    """
    rows = [("model", model_text(source)), *_preset(config), *data.lines, ("engine", plan_text(config))]
    return [
        *rows,
        *_steps(config, data.num_samples),
        *memory_rows(memory_planner(config, source), config),
        *_projection(config),
        *_others(config),
    ]


def num_ranks(config: TrainConfig) -> int:
    """The number of processes that would take part, or that the plan is for."""
    return config.plan_ranks or max(world_size(), config.num_procs or 1)


def _preset(config: TrainConfig) -> Rows:
    if config.preset is None:
        return []
    told = config.from_preset()
    words = [", ".join(f"{key.replace('_', '-')} {value}" for key, value in values.items()) for values in told.values()]
    return [("preset", f"{config.preset}: {words[0]}")] + ([("", f"by hand: {words[1]}")] if words[1] else [])


def _steps(config: TrainConfig, num_samples: int) -> Rows:
    per_step = config.batch_size * config.accumulation * num_ranks(config)
    per_epoch = math.ceil(num_samples / per_step)
    total = config.max_steps if config.max_steps is not None else math.ceil(per_epoch * config.epochs)
    layout = f"{config.batch_size} x {config.accumulation} accumulated x {num_ranks(config)} ranks"
    return [
        ("steps", f"{total} of {per_step} samples ({layout})"),
        ("tokens", f"at most {total * per_step * config.longest:,}"),
    ]


def memory_planner(config: TrainConfig, source: ModelSource) -> Planner:
    """Estimates of what the run holds in memory, on any number of ranks."""
    pairs = not isinstance(config, TrainSftConfig)
    trained = (config.batch_size * (2 if pairs else 1) + _anchor_rows(config), config.longest)
    reference = None
    edits = Edits(
        keeps=config.basis is not None or (config.mask is not None and config.mask_at == "update"),
        keeps_all=config.basis is not None and config.space == "update" and config.scope != "tensor",
        keeps_each_step=(config.basis is not None and config.space == "update")
        or (config.mask is not None and config.mask_at == "update"),
        round_elements=ROUND_ELEMENTS,
        held_elements=ROUND_ELEMENTS_ON_CPU,
        tracks_change=config.track_change,
    )
    if config.mask is not None:
        found = open_mask(config.mask).description
        edits = replace(edits, masked=True, mask_share=found.num_selected / max(1, found.num_parameters))
    if config.basis is not None:
        description, _ = open_basis(config.basis)
        edits = replace(
            edits,
            rows=description.rank,
            row_elements=sum(math.prod(shape) for shape in description.shapes.values()),
            row_width=2 if description.dtype == "bf16" else 4,
        )
        if config.refresh_every != 0:
            in_pairs = any(record.kind == "dpo" for record in description.objectives)
            reference = (description.batch_size * (2 if in_pairs else 1), config.longest)
    return Planner(config, source, Work(edits, trained, reference, accumulates=config.accumulation > 1))


def _anchor_rows(config: TrainConfig) -> int:
    """Anchor rows of a micro-batch: their activations are held until the backward pass of all of its rows."""
    if config.anchors is None:
        return 0
    passes = config.accumulation * num_ranks(config)
    return math.ceil(rows_per_step(config.batch_size * passes, config.anchors.ratio) / passes)


def _projection(config: TrainConfig) -> Rows:
    if config.basis is None:
        return [("projection", "none (naive baseline)")]
    description, _ = open_basis(config.basis)
    elements = sum(math.prod(shape) for shape in description.shapes.values()) * description.rank
    num_bytes = elements * (2 if description.dtype == "bf16" else 4)
    rows = f"{description.rank} row" + ("s" if description.rank > 1 else "")
    refresh = {0: "never", "auto": f"when it has turned by {config.max_drift:g} degrees"}.get(
        config.refresh_every, f"every {config.refresh_every} steps"
    )
    values = deepspeed_config(config, on_cpu=False) or {}
    shared = num_ranks(config) if int(values.get("zero_optimization", {}).get("stage", 0)) >= 1 else 1
    return [
        ("projection", f"{config.space} space, {rows} a tensor, {_SCOPES[config.scope]}refreshed {refresh}"),
        ("basis", f"{elements:,} numbers, {size(num_bytes / shared)} per rank"),
    ]


def _others(config: TrainConfig) -> Rows:
    rows = _forgotten(config)
    rows += [("frozen", ", ".join(config.freeze))] if config.freeze else []
    rows += _anchors(config)
    if config.mask is not None:
        found = open_mask(config.mask).description
        share = found.num_selected / max(1, found.num_parameters)
        how = f"{found.num_selected:,} of {found.num_parameters:,} weights are trained ({share:.2%})"
        rows.append(("mask", f"{how}, held at the {config.mask_at}"))
    rows += _token_weights(config)
    if config.track_change:
        rows.append(("change", "tracked: each rank keeps a copy of its starting weights"))
    return rows


def _forgotten(config: TrainConfig) -> Rows:
    if not isinstance(config, TrainNpoConfig):
        return []
    text = f"the rejected answers, {config.loss}, beta {config.beta:g}"
    if config.gamma:
        text += f", gamma {config.gamma:g}"
    if config.retain_weight:
        text += f"; cross-entropy of the chosen ones, weight {config.retain_weight:g}"
    return [("forgetting", text)]


def _token_weights(config: TrainConfig) -> Rows:
    rows = []
    if config.token_weights is not None:
        found = open_token_weights(config.token_weights).description
        counted = f"{found.share_nonzero:.2%} of {found.num_tokens:,} tokens weigh something"
        divided = ", divided by their sum" if getattr(config, "normalise", "count") == "weight" else ""
        rows.append(("token weights", f"{config.token_weights}: {found.rule}, {found.map}; {counted}{divided}"))
    if isinstance(config, TrainDpoConfig) and config.token_filter is not None:
        how = config.token_filter
        of = "a batch's padded width" if how.padded else "each answer"
        rows.append(("rejected tokens", f"{how.share:.4g} of {of}, the least likely against the starting model"))
    return rows


def _anchors(config: TrainConfig) -> Rows:
    rows = []
    anchors = config.anchors
    if anchors is not None:
        number = rows_per_step(config.batch_size * config.accumulation * num_ranks(config), anchors.ratio)
        sets = []
        for path in anchors.paths:
            data, manifest = load_prepared(path)
            answered = anchors.kind != "ce" and manifest.kind != SAMPLES
            sets.append(f"{path} ({len(data)} rows{', whose prompts the model answers first' if answered else ''})")
        shares = f" in shares {':'.join(f'{share:g}' for share in anchors.shares)}" if anchors.shares else ""
        how = f"{anchors.kind}, weight {anchors.weight:g}"
        a_sample = ", more where samples are packed" if getattr(config, "packing", False) else ""
        rows.append(("anchor", f"{', '.join(sets)}{shares}: {number} beside those of each step{a_sample}, {how}"))
    if config.prompt_anchor > 0:
        text = f"divergence from the starting model at the safety prompts, weight {config.prompt_anchor:g}"
        rows.append(("prompt anchor", text))
    return rows
