"""The transforms that a run's options ask for, opened once engine and optimizer are ready."""

from __future__ import annotations

from typing import Any

import torch

from data_registry.core.errors import ConfigError
from pipelines.basis.opening import open_basis_for_training
from pipelines.configs.train import TrainConfig
from pipelines.engine import processes
from pipelines.engine.shards.access import ShardAccess
from pipelines.engine.shards.opening import open_shards
from pipelines.models.reference import ModelSource
from pipelines.training.masks import open_masked
from pipelines.training.stepping import ChainMaker
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.change_tracking import ChangeTracking
from pipelines.transforms.freezing import Freezing, frozen_tensors
from pipelines.transforms.masking import masking_transforms
from pipelines.transforms.projection import Projection, ProjectionSettings, keeps_momentum
from pipelines.transforms.projector import Masked
from pipelines.transforms.transform import Transform


def chain_maker(config: TrainConfig, source: ModelSource, architecture: str, pad_token_id: int) -> ChainMaker | None:
    """A function that opens the transforms of a run; None where its options ask for none.

    Args:
        config: the command's options.
        source: the model that training starts from.
        architecture: the name of the model's class.
        pad_token_id: the id of the token that pads batches of reference samples.
    """
    if config.basis is None and not config.freeze and not config.track_change and config.mask is None:
        return None
    fingerprint = source.input_record().fingerprint

    def make(model: Any, engine: Any, optimizer: torch.optim.Optimizer) -> TransformChain:
        access = open_shards(model, engine)
        frozen = frozen_tensors(config.freeze, access) if config.freeze else []
        masked = open_masked(config, access, architecture, frozen)
        transforms: list[Transform] = [Freezing(access, frozen)] if frozen else []
        if masked is not None:
            again = config.basis is not None and config.space == "update"
            transforms += masking_transforms(config.mask_at, access, masked.frozen, optimizer, again=again)
        if config.basis is not None:
            _check_momentum(config, optimizer)
            transforms.append(
                _projection(config, access, optimizer, architecture, fingerprint, pad_token_id, frozen, masked)
            )
        if config.track_change:
            transforms.append(ChangeTracking(access))
        return TransformChain(access, optimizer, transforms)

    return make


def _projection(
    config: TrainConfig,
    access: ShardAccess,
    optimizer: torch.optim.Optimizer,
    architecture: str,
    fingerprint: str,
    pad_token_id: int,
    frozen: list[int],
    masked: Masked | None,
) -> Projection:
    assert config.basis is not None
    basis = open_basis_for_training(
        config.basis,
        access,
        architecture=architecture,
        model_fingerprint=fingerprint,
        pad_token_id=pad_token_id,
        num_samples=config.refresh_samples,
    )
    settings = ProjectionSettings(
        space=config.space,
        refresh_every=config.refresh_every,
        refresh_at_start=config.refresh_every != 0 and not basis.is_current,
        strength=config.strength,
        scope=config.scope,
        momentum=config.momentum,
        max_drift=config.max_drift,
    )
    device = access.device()
    return Projection(
        settings,
        access,
        basis.rows,
        basis.objectives,
        basis.loss_sum,
        left_alone=frozen,
        masked=masked,
        before_batch=lambda: processes.stop_point(device),
        learning_rate=lambda: max(float(group["lr"]) for group in optimizer.param_groups),
    )


def _check_momentum(config: TrainConfig, optimizer: torch.optim.Optimizer) -> None:
    if config.momentum == "reproject" and not keeps_momentum(optimizer):
        raise ConfigError(
            f"--momentum reproject does not serve the optimizer {type(optimizer).__name__}: it keeps no running "
            "mean of gradients that could be projected",
            fix="use AdamW (the default), or --momentum keep",
        )
