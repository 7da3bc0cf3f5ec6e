"""The inputs of a training run: model, data sets, basis, mask and token weights, each checked before work begins."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import InputRecord, Manifest, as_input
from data_registry.prepared import prepared_table
from pipelines.basis.description import BasisDescription
from pipelines.basis.objectives.finding import reference_loss
from pipelines.basis.reading import open_basis
from pipelines.configs.train import TrainConfig
from pipelines.core.option_files import option_file_inputs
from pipelines.models.four_bits import check_four_bits
from pipelines.models.limits import limits_of_source
from pipelines.models.lora import lora_settings, refuse_adapters_on_adapter
from pipelines.models.reference import ModelSource
from pipelines.sampling.conversations import read_conversations
from pipelines.token_weights.opening import open_token_weights
from pipelines.tokens.fitting import Bounds
from pipelines.tokens.tokenizer import load_source_tokenizer

logger = logging.getLogger(__name__)


def training_inputs(config: TrainConfig, source: ModelSource, *, task: str) -> list[InputRecord]:
    """Records of model, data sets, basis, mask and token weights.

    Raises:
        ConfigError: fresh adapters are asked for on top of an adapter, or options do not go with the basis.
        OgpsaError: one of the inputs cannot be used.
    """
    check_four_bits(config)
    refuse_adapters_on_adapter(config, source)
    if source.is_adapter and config.preset is not None and "learning_rate" in config.from_preset()["from_preset"]:
        raise ConfigError(
            f"'{config.model}' is an adapter, and --learning-rate {config.learning_rate:g} of --preset {config.preset} "
            "is for training all parameters",
            fix="give the learning rate beside --preset; docs/presets.md has that for adapters",
        )
    records = source.input_records()
    prepared = [(role, path, prepared_table(path, task=task)[1]) for role, path in config.data_sets()]
    records += [as_input(role, path, manifest) for role, path, manifest in prepared]
    _compare_lengths(config, {path: manifest for _, path, manifest in prepared})
    records += option_file_inputs({"chat template": config.chat_template, "DeepSpeed file": config.deepspeed})
    # A model's own answers are made to the prompts of either task.
    task_of_anchor = "sft" if config.anchor_kind == "ce" else None
    records += [as_input("anchor", path, prepared_table(path, task=task_of_anchor)[1]) for path in config.anchor]
    if config.sample_prompts is not None:
        read_conversations(config.sample_prompts)
    if config.mask is not None:
        from pipelines.training.masks import mask_input

        records += mask_input(config, source)
    if config.token_weights is not None:
        weights = open_token_weights(config.token_weights)
        records.append(as_input("token-weights", config.token_weights, weights.manifest))
    if config.basis is not None:
        description, manifest = open_basis(config.basis)
        check_options(config, description, records[0].fingerprint)
        records.append(as_input("basis", config.basis, manifest))
    return records


def _compare_lengths(config: TrainConfig, prepared: Mapping[Path, Manifest]) -> None:
    """Say which data sets lose tokens that their preparation kept, or keep those that it said would be cut."""
    for path, manifest in prepared.items():
        length, counts = manifest.config.get("max_length"), manifest.summary.get("counts", {})
        if not isinstance(length, int) or length == config.longest:
            continue
        if length > config.longest:
            what = "rows may be cut that it kept whole"
        elif counts.get("cut"):
            what = f"{counts['cut']} rows that it would have cut are used whole"
        else:
            continue
        logger.warning(
            "'%s' was prepared with --max-length %d, and this run has %d, so that %s: --max-length %d does as the "
            "preparation said",
            path, length, config.longest, what, length,
        )  # fmt: skip


def check_options(config: TrainConfig, description: BasisDescription, model_fingerprint: str) -> None:
    """Refuse options that do not go with the basis.

    Raises:
        ConfigError: there are such options; the message names them.
    """
    if lora_settings(config) is not None and config.refresh_every == 0:
        raise ConfigError(
            "--refresh-every 0 keeps the basis fixed, but fresh LoRA adapters differ from those it was built with",
            fix="refresh (--refresh-every 30), or train all parameters",
        )
    loss = reference_loss(description.kind)
    if loss.needs_start_values and description.model_fingerprint != model_fingerprint:
        raise ConfigError(
            f"the basis holds a {loss.title} objective, whose reference is the model that it was built for "
            f"({description.model}); training starts from another",
            fix=f"build one for it:  ogpsa build-basis {config.model} --objective {loss.name} "
            "--reference DATA --out DIR",
        )
    largest = max(record.num_samples for record in description.objectives)
    if config.refresh_samples is not None and config.refresh_samples > largest:
        raise ConfigError(
            f"--refresh-samples {config.refresh_samples} is more than the {largest} samples kept with the basis",
            fix="build the basis with a larger --num-samples",
        )


def training_bounds(config: TrainConfig, source: ModelSource) -> Bounds:
    """What the rows that a run reads must keep to."""
    limits = limits_of_source(source, trust_remote_code=config.trust_remote_code)
    return Bounds(config.longest, config.drop_too_long, limits)


def load_training_tokenizer(config: TrainConfig, source: ModelSource) -> Any:
    """The tokenizer with the chat template that training uses; it is saved with the model."""
    return load_source_tokenizer(source, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code)
