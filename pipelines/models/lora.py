"""LoRA adapters from the command's options."""

from __future__ import annotations

from typing import Any

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, first_line
from pipelines.configs.common import LoraConfig


def lora_settings(config: LoraConfig) -> dict[str, Any] | None:
    """The resolved LoRA options as plain values, or None for full fine-tuning."""
    if config.lora_rank == 0:
        return None
    return {
        "rank": config.lora_rank,
        "alpha": config.lora_alpha if config.lora_alpha is not None else 2.0 * config.lora_rank,
        "dropout": config.lora_dropout,
        "targets": config.lora_targets,
    }


def peft_config(settings: dict[str, Any]) -> Any:
    """PEFT's configuration for :func:`lora_settings`."""
    import peft

    targets = settings["targets"]
    return peft.LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=targets if targets == "all-linear" else _split(targets),
        task_type="CAUSAL_LM",
    )


def check_targets(model: Any, settings: dict[str, Any]) -> None:
    """Refuse target names that no module has; PEFT would silently use only the names that match.

    Raises:
        ConfigError: there are such names; the message lists them.
    """
    if settings["targets"] == "all-linear":
        return
    modules = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules() if name}
    missing = [name for name in _split(settings["targets"]) if name.rsplit(".", 1)[-1] not in modules]
    if missing:
        raise ConfigError(
            [
                f"option 'lora_targets': the model has no module '{name}'{suggest(name, sorted(modules))}"
                for name in missing
            ]
        )


def _split(targets: str) -> list[str]:
    return [name.strip() for name in targets.split(",") if name.strip()]


def add_adapters(model: Any, settings: dict[str, Any], *, seed: int) -> Any:
    """Wrap ``model`` with fresh adapters, initialised from ``seed``.

    Raises:
        ConfigError: no module of the model has one of the target names.
    """
    import peft
    import torch

    check_targets(model, settings)
    torch.manual_seed(seed)
    try:
        return peft.get_peft_model(model, peft_config(settings))
    except ValueError as error:
        raise ConfigError(f"option 'lora_targets': {first_line(error)}") from error
