"""The plan of a training command for ``--dry-run``: steps, tokens, memory per rank, size of the basis."""

from __future__ import annotations

import math
from pathlib import Path

from data_registry.prepared import SAMPLES, load_prepared
from pipelines.basis.reading import open_basis
from pipelines.configs.common import EngineConfig
from pipelines.configs.train import TrainConfig, TrainDpoConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.job import world_size
from pipelines.engine.deepspeed_config import deepspeed_config, plan_text
from pipelines.masks.opening import open_mask
from pipelines.models.reference import ModelSource
from pipelines.models.summary import summarize_model
from pipelines.token_weights.opening import open_token_weights
from pipelines.training.data.anchor_schedule import rows_per_step
from pipelines.training.data.plan import DataPlan, Rows

_SCOPES = {"tensor": "", "layer": "a subspace for each layer, ", "global": "one subspace for all parameters, "}


def training_plan(config: TrainConfig, source: ModelSource, data: DataPlan) -> Rows:
    """The rows of the plan.

    Args:
        config: the command's options.
        source: the model.
        data: the plan of the data that it is trained on.
    """
    rows = [("model", source.reference), *_preset(config), *data.lines, ("engine", plan_text(config))]
    return [*rows, *_steps(config, data.num_samples), *_memory(config, source), *_projection(config), *_others(config)]


def num_ranks(config: EngineConfig) -> int:
    """The number of processes that would take part."""
    return max(world_size(), config.num_procs or 1)


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
        ("tokens", f"at most {total * per_step * config.max_length:,}"),
    ]


def memory_per_rank(num_parameters: int, config: EngineConfig, ranks: int) -> tuple[float, float]:
    """Bytes of weights, gradients and AdamW's state on a rank's device and in its host memory, without activations.

    Args:
        num_parameters: the number of parameters, all of which are trained.
        config: the engine options.
        ranks: the number of data-parallel processes.

    Returns:
        (device bytes, host bytes); the host holds only what ``--offload`` moves there.

    Source:
        ZeRO (arXiv 1910.02054), with fp32 accumulation of gradients in stages 2 and 3 as in our presets.
    """
    values = deepspeed_config(config, on_cpu=False)
    if values is None:
        return 16.0 * num_parameters, 0.0
    stage = int(values.get("zero_optimization", {}).get("stage", 0))
    bf16 = bool(values.get("bf16", {}).get("enabled"))
    weights, state = (2, 12) if bf16 else (4, 12 if stage else 8)
    gradients = 4 if stage >= 2 else weights
    shared_weights = weights / ranks if stage == 3 else weights
    shared_gradients = gradients / ranks if stage >= 2 else gradients
    shared_state = state / ranks if stage >= 1 else state
    offloaded = values.get("zero_optimization", {}).get("offload_optimizer", {}).get("device") == "cpu"
    on_device = shared_weights + shared_gradients + (0 if offloaded else shared_state)
    return on_device * num_parameters, (shared_state * num_parameters if offloaded else 0.0)


def _memory(config: TrainConfig, source: ModelSource) -> Rows:
    if not source.is_local:
        return [("memory", "known once the model is on this machine")]
    directory = Path(source.path_or_id) if source.base is None else Path(source.base.path_or_id)
    number = summarize_model(directory).num_parameters
    if config.lora_rank or source.is_adapter:
        width = 2 if config.precision == "bf16" and (config.zero is not None or config.deepspeed is not None) else 4
        return [("memory", f"{_size(width * number)} of frozen weights per rank, and little for the adapters")]
    device, host = memory_per_rank(number, config, num_ranks(config))
    text = (
        f"{_size(device)} per rank for weights, gradients and optimizer of {number:,} parameters, without activations"
    )
    return [("memory", text + (f"; {_size(host)} in host memory" if host else ""))]


def _projection(config: TrainConfig) -> Rows:
    if config.basis is None:
        return [("projection", "none (naive baseline)")]
    description, _ = open_basis(config.basis)
    elements = sum(math.prod(shape) for shape in description.shapes.values()) * description.rank
    size = elements * (2 if description.dtype == "bf16" else 4)
    rows = f"{description.rank} row" + ("s" if description.rank > 1 else "")
    refresh = {0: "never", "auto": f"when it has turned by {config.max_drift:g} degrees"}.get(
        config.refresh_every, f"every {config.refresh_every} steps"
    )
    values = deepspeed_config(config, on_cpu=False) or {}
    shared = num_ranks(config) if int(values.get("zero_optimization", {}).get("stage", 0)) >= 1 else 1
    return [
        ("projection", f"{config.space} space, {rows} a tensor, {_SCOPES[config.scope]}refreshed {refresh}"),
        ("basis", f"{elements:,} numbers, {_size(size / shared)} per rank"),
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


def _size(num_bytes: float) -> str:
    unit = "MiB" if num_bytes < 2**30 else "GiB"
    return f"{num_bytes / (2**20 if unit == 'MiB' else 2**30):,.1f} {unit}"
