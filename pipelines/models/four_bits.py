"""Frozen weights held in four bits while adapters beside them are trained (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

import importlib.util
from typing import Any

from data_registry.core.errors import ConfigError
from pipelines.configs.common import EngineConfig, LoraConfig
from pipelines.core.config import CommandConfig


def in_four_bits(config: CommandConfig) -> bool:
    """Whether the options ask for frozen weights in four bits."""
    return isinstance(config, LoraConfig) and config.load_in_4bit


def check_four_bits(config: CommandConfig) -> None:
    """Refuse four bits where this machine cannot compute with them, before anything is loaded.

    Raises:
        ConfigError: there is no CUDA, or bitsandbytes is not installed.
    """
    if not in_four_bits(config):
        return
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            "--load-in-4bit computes on a GPU with CUDA, and torch finds none here",
            fix="leave it out, or run on a machine with such a GPU; ogpsa doctor says what is there",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "--load-in-4bit needs the package bitsandbytes, which is not installed",
            fix="pip install 'ogpsa[gpu]'",
        )


def four_bit_options(precision: str) -> dict[str, Any]:
    """The arguments with which transformers loads weights as four-bit NormalFloat, their scales quantised once more.

    Args:
        precision: ``"fp32"`` or ``"bf16"``, in which matrix products are computed.
    """
    import torch
    from transformers import BitsAndBytesConfig
    from transformers.integrations import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():
        raise ConfigError(
            "--load-in-4bit does not go with ZeRO 3, which would spread the packed weights over ranks",
            fix="use a DeepSpeed file of stage 2, or --zero 2: weights of four bits fit on each GPU",
        )
    compute = torch.float32 if precision == "fp32" else torch.bfloat16
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {"quantization_config": settings, "device_map": {"": torch.cuda.current_device()}, "dtype": compute}


def ready_for_adapters(model: Any, *, gradient_checkpointing: bool) -> Any:
    """The model with all its weights frozen and those that are not in four bits, such as norms, in float32."""
    import peft

    return peft.prepare_model_for_kbit_training(
        model,
        use_gradient_checkpointing=gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )


def arithmetic_of(config: EngineConfig) -> str:
    """The precision by name, for what is stored under what it was computed with."""
    return f"{config.precision}, nf4" if in_four_bits(config) else config.precision
