"""Which layers of a model get adapters: ``--lora-layers`` read, and held against the model."""

from __future__ import annotations

import re
from typing import Any

from data_registry.core.errors import ConfigError
from pipelines.models.text_config import text_config

# A layer's number is the first in the name of a module, as PEFT has it: experts have numbers of their own below.
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")


def layer_numbers(text: str, num_layers: int) -> list[int]:
    """The numbers of layers that a text names, from 0, ascending.

    Args:
        text: ``all``, ``first:N``, ``last:N``, or numbers and ranges with commas (``0-11,20``).
        num_layers: the number of layers of the model.

    Raises:
        ConfigError: the model has not so many layers.
    """
    if text == "all":
        return list(range(num_layers))
    which, colon, number = text.partition(":")
    if colon:
        if int(number) > num_layers:
            raise ConfigError(f"option 'lora_layers': {text} are more than the model's {num_layers} layers")
        return list(range(int(number))) if which == "first" else list(range(num_layers - int(number), num_layers))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    if max(found) >= num_layers:
        raise ConfigError(
            f"option 'lora_layers': there is no layer {max(found)}: the model has {num_layers}, from 0 to "
            f"{num_layers - 1}"
        )
    return sorted(found)


def layers_of_adapters(model: Any, text: str, targets: list[str] | None) -> tuple[list[int], list[str]]:
    """The layers that get adapters, and the names of the modules in them.

    Args:
        model: the model.
        text: the option's value, not ``all``.
        targets: the names of the modules to adapt; None for all linear ones.

    Raises:
        ConfigError: the model has no numbered layers, not those, or no module of that name in one of them.
    """
    import torch

    by_layer: dict[int, set[str]] = {}
    for name, module in model.named_modules():
        found = _LAYER.match(name)
        if found and (isinstance(module, torch.nn.Linear) or targets is not None):
            by_layer.setdefault(int(found[1]), set()).add(name.rsplit(".", 1)[-1])
    number = getattr(text_config(model.config), "num_hidden_layers", None)
    if not by_layer or not isinstance(number, int):
        raise ConfigError(f"option 'lora_layers': {type(model).__name__} has no numbered layers; leave it out")
    layers = layer_numbers(text, number)
    wanted = targets or sorted(set().union(*(by_layer.get(layer, set()) for layer in layers)))
    names = {target.rsplit(".", 1)[-1] for target in wanted}
    empty = [layer for layer in layers if not by_layer.get(layer, set()) & names]
    if empty:
        raise ConfigError(
            f"option 'lora_layers': layer {empty[0]} has no module to adapt (--lora-targets {', '.join(sorted(names))})"
        )
    return layers, wanted
