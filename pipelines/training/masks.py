"""The mask of a run: checked with the inputs, and opened once the model stands ready to be trained."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.distributed as dist

from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import InputRecord, as_input
from pipelines.configs.train import TrainConfig
from pipelines.engine.shards.access import ShardAccess
from pipelines.masks.opening import check_model, check_shapes, open_mask, read_frozen
from pipelines.models.lora import lora_settings
from pipelines.models.reference import ModelSource
from pipelines.transforms.projector import Masked


def mask_input(config: TrainConfig, source: ModelSource) -> list[InputRecord]:
    """The record of the mask, if there is one; it is checked against the model that training starts from.

    Raises:
        ConfigError: adapters are trained, whose weights no mask names.
        InputError: there is no artifact.
        ArtifactError: it is no mask, damaged, or was chosen for another model.
    """
    if config.mask is None:
        return []
    if lora_settings(config) is not None or source.is_adapter:
        raise ConfigError(
            "--mask names weights of the model, and adapters are trained beside them",
            fix="leave --mask out, or train all parameters (--lora-rank 0, on a full model)",
        )
    mask = open_mask(config.mask)
    check_model(mask, source.input_record())
    return [as_input("mask", config.mask, mask.manifest)]


def open_masked(
    config: TrainConfig, access: ShardAccess, architecture: str, frozen_tensors: Collection[int]
) -> Masked | None:
    """Which elements of this rank's shards the mask of a run freezes; None without a mask. Collective.

    Args:
        config: the command's options.
        access: this rank's shards of the trainable parameters.
        architecture: the name of the model's class.
        frozen_tensors: the indices of tensors that are frozen as a whole.

    Raises:
        ArtifactError: the mask was chosen for other parameters, or cannot be read.
        InputError: no weight is left to train.
    """
    if config.mask is None:
        return None
    mask = open_mask(config.mask)
    check_shapes(mask, dict(zip(access.names, access.shapes, strict=True)), architecture)
    frozen = read_frozen(mask, access)
    counts = torch.zeros(len(access.names), dtype=torch.int64, device=access.device())
    for shard, held in zip(access.shards, frozen, strict=True):
        if shard.tensor in frozen_tensors:
            held.fill_(True)
        counts[shard.tensor] += int((~held).sum())
    if not access.replicated and access.world_size > 1:
        dist.all_reduce(counts)
    if not int(counts.sum()):
        raise InputError(
            f"the mask '{config.mask}' leaves no weight to train"
            + (": all that it chooses are frozen by --freeze" if frozen_tensors else ""),
            fix="build a mask of more weights, or leave out some patterns of --freeze",
        )
    return Masked(frozen, counts.tolist())
