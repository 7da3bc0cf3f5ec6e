"""LoRA adapters from the command's options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, first_line
from pipelines.configs.common import LoraConfig, TrainedLoraConfig
from pipelines.models.lora_layers import layers_of_adapters

if TYPE_CHECKING:
    from pipelines.models.reference import ModelSource

# The types of models, and their layers, that PEFT refuses to adapt.
_STATE_SPACE = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
_READ_BY_KERNELS = {"out_proj", "conv1d"}


def lora_settings(config: LoraConfig) -> dict[str, Any] | None:
    """The resolved LoRA options as plain values, or None for full fine-tuning."""
    if config.lora_rank == 0:
        return None
    return {
        "rank": config.lora_rank,
        "alpha": config.lora_alpha if config.lora_alpha is not None else 2.0 * config.lora_rank,
        "dropout": config.lora_dropout if isinstance(config, TrainedLoraConfig) else 0.0,
        "targets": config.lora_targets,
        # Recorded only where it says something, as in what was made before there was a choice.
        **({} if config.lora_layers == "all" else {"layers": config.lora_layers}),
    }


def refuse_adapters_on_adapter(config: LoraConfig, source: ModelSource) -> None:
    """Refuse fresh adapters on top of an adapter.

    Raises:
        ConfigError: they are asked for.
    """
    if source.is_adapter and config.lora_rank > 0:
        raise ConfigError(
            f"--lora-rank makes fresh adapters, and '{source.reference}' is an adapter, which training goes on from",
            fix="leave --lora-rank out, or fold the adapter into its base first and train on the model",
        )


def peft_config(model: Any, settings: dict[str, Any]) -> Any:
    """PEFT's configuration for :func:`lora_settings`.

    Args:
        model: the model that gets the adapters.
        settings: the options.

    Raises:
        ConfigError: the model has not the layers that are asked for.
    """
    import peft

    targets: str | list[str] = settings["targets"]
    targets = targets if targets == "all-linear" else _split(str(targets))
    layers = None
    if "layers" in settings:
        # PEFT takes layers beside names of modules alone.
        names = targets if isinstance(targets, list) else None
        layers, targets = layers_of_adapters(model, settings["layers"], names)
    return peft.LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=targets,
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


def check_targets(model: Any, settings: dict[str, Any]) -> None:
    """Refuse target names that no module has; PEFT would silently use only the names that match.

    Raises:
        ConfigError: there are such names; the message lists them.
    """
    _check_state_space(model, settings["targets"])
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


def _check_state_space(model: Any, targets: str) -> None:
    """Refuse layers of state-space models whose weights their kernels read past the adapter, as PEFT does.

    Raises:
        ConfigError: there are such layers among the targets; the message gives the others.
    """
    import torch

    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in _STATE_SPACE:
        return
    linear = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()
    }
    asked = linear if targets == "all-linear" else {name.rsplit(".", 1)[-1] for name in _split(targets)}
    if asked & _READ_BY_KERNELS:
        raise ConfigError(
            f"option 'lora_targets': {', '.join(sorted(asked & _READ_BY_KERNELS))} of a model of type {kind} cannot be "
            "adapted, because its kernels read the weights themselves",
            fix=f"--lora-targets {','.join(sorted(linear - _READ_BY_KERNELS))}",
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
        return peft.get_peft_model(model, peft_config(model, settings))
    except ValueError as error:
        raise ConfigError(f"option 'lora_targets': {first_line(error)}") from error
