"""Choosing the shard views that fit an engine; an engine that cannot be served is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from data_registry.core.errors import EngineError
from pipelines.engine.shards.access import ShardAccess
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.engine.shards.zero3 import Zero3Access
from pipelines.engine.shards.zero12 import Zero12Access


def open_shards(model: nn.Module, engine: Any | None = None) -> ShardAccess:
    """Views of the shards that this rank holds.

    Args:
        model: the bare model (neither wrapped by DDP nor by an engine).
        engine: its DeepSpeed engine, with an optimizer; None without DeepSpeed.

    Raises:
        EngineError: the engine's configuration cannot be served; the message names it.
    """
    if engine is None:
        return ReplicatedAccess(model)
    optimizer = engine.optimizer
    _refuse_unservable(engine)
    makers: dict[str, Callable[[], ShardAccess]] = {
        "DeepSpeedZeroOptimizer": lambda: Zero12Access(engine),
        "DeepSpeedZeroOptimizer_Stage3": lambda: Zero3Access(engine),
        "FP16_UnfusedOptimizer": lambda: ReplicatedAccess(model, _unfused_masters(model, optimizer)),
    }
    kind = type(optimizer).__name__
    if kind in makers:
        return makers[kind]()
    if isinstance(optimizer, torch.optim.Optimizer) and engine.zero_optimization_stage() == 0:
        return ReplicatedAccess(model)
    raise EngineError(
        f"gradient projection does not serve DeepSpeed's {kind} (ZeRO stage {engine.zero_optimization_stage()})",
        fix="use --zero 2 or --zero 3; with bf16 and ZeRO 1, leave grad_accum_dtype at bf16",
    )


def _unfused_masters(model: nn.Module, optimizer: Any) -> list[Tensor]:
    master_of = {
        id(low): high
        for low_group, high_group in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
        for low, high in zip(low_group, high_group, strict=True)
    }
    return [master_of[id(p)] for p in model.parameters() if p.requires_grad]


def _refuse_unservable(engine: Any) -> None:
    zero = engine._config.zero_config
    reasons = {
        "zero_optimization.round_robin_gradients": bool(getattr(zero, "round_robin_gradients", False)),
        "managed_gradient_accumulation: false": not engine.managed_gradient_accumulation(),
        "zero_optimization.zenflow": getattr(zero, "zenflow", None) is not None,
        "zero_optimization.offload_optimizer.device: nvme": _offload_device(zero) == "nvme",
        "pipeline parallelism": bool(getattr(engine, "pipeline_parallelism", False)),
        "fp16": bool(engine.fp16_enabled()),
        "mixture-of-experts layers of DeepSpeed": bool(getattr(engine, "has_moe_layers", False)),
    }
    for name, present in reasons.items():
        if present:
            raise EngineError(
                f"gradient projection does not serve DeepSpeed's {name}",
                fix="remove it from the DeepSpeed configuration",
            )


def _offload_device(zero: Any) -> str:
    offload = zero.offload_optimizer
    return "none" if offload is None else str(getattr(offload.device, "value", offload.device))
