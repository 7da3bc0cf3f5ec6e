"""The DeepSpeed configuration: presets for ``--zero`` and ``--offload``, or the user's own JSON, checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_registry.core.documents import read_text
from data_registry.core.errors import ConfigError
from pipelines.configs.common import EngineConfig

# The trainer fills these in from its own options, so that the two cannot disagree.
_AUTO = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "train_batch_size")


def deepspeed_config(config: EngineConfig, *, on_cpu: bool) -> dict[str, Any] | None:
    """The configuration for DeepSpeed, with ``"auto"`` where the trainer fills in a value; None without DeepSpeed.

    Args:
        config: the command's engine options.
        on_cpu: whether there is no accelerator.

    Raises:
        ConfigError: the user's file cannot be used.
    """
    if config.deepspeed is not None:
        values = _read(config.deepspeed)
    elif config.zero is not None:
        values = _preset(config)
    else:
        return None
    for key in _AUTO:
        values.setdefault(key, "auto")
    # Any torch optimizer works: the steps are the same, and the self-test checks that it reads the projected gradient.
    values.setdefault("zero_allow_untested_optimizer", True)
    values.setdefault("zero_force_ds_cpu_optimizer", False)
    if on_cpu:
        # The fused host optimizer would have to be compiled, and gains nothing where everything is on the host anyway.
        values["zero_force_ds_cpu_optimizer"] = False
    return values


def _preset(config: EngineConfig) -> dict[str, Any]:
    stage = config.zero
    zero: dict[str, Any] = {"stage": stage}
    if stage in (1, 2):
        zero |= {"reduce_bucket_size": 5e8, "allgather_bucket_size": 5e8, "overlap_comm": False}
    if stage == 3:
        zero |= {"stage3_gather_16bit_weights_on_model_save": True, "overlap_comm": False}
    if config.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    values: dict[str, Any] = {"zero_optimization": zero, "bf16": {"enabled": config.precision == "bf16"}}
    if config.precision == "bf16" and stage in (2, 3):
        values["data_types"] = {"grad_accum_dtype": "fp32"}
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_text(path, "DeepSpeed file"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the DeepSpeed file '{path}' cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the DeepSpeed file '{path}' holds no JSON object")
    problems = []
    for key in ("optimizer", "scheduler"):
        if key in values:
            problems.append(
                f"'{key}': the optimizer and schedule are options of ogpsa (--learning-rate, --schedule ...)"
            )
    zero = values.get("zero_optimization", {})
    if zero.get("round_robin_gradients"):
        problems.append("'zero_optimization.round_robin_gradients': true: projection would miss gradients; remove it")
    if values.get("managed_gradient_accumulation") is False:
        problems.append("'managed_gradient_accumulation': false is not served; remove it")
    if values.get("fp16", {}).get("enabled") is True:
        problems.append("'fp16': use bf16; loss scaling is not served")
    if problems:
        raise ConfigError(problems, where=str(path))
    return values


def plan_text(config: EngineConfig) -> str:
    """The engine configuration as one phrase for ``--dry-run``."""
    if config.deepspeed is not None:
        return f"DeepSpeed as in {config.deepspeed}"
    if config.zero is None:
        return "no DeepSpeed"
    return f"DeepSpeed ZeRO {config.zero}{', optimizer state in CPU memory' if config.offload else ''}"
