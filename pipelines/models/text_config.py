"""The part of a model's configuration that describes its text, wherever the model keeps it; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where transformers looks for the part of the text, of models that also see, hear or speak.
_PARTS = ("text_config", "decoder", "generator")
# The same setting under the names of older architectures, in the order in which they are tried.
_NAMES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "vocab_size": ("vocab_size",),
}


def text_config(config: Any) -> Any:
    """The configuration of the text model: the nested one of a model with several parts, or the configuration itself.

    Read ``vocab_size``, ``hidden_size``, ``max_position_embeddings`` and their like from what this function returns,
    since the outer configuration of models such as Gemma 3 has none of them.

    Args:
        config: the configuration of a loaded model, as ``model.config`` or ``AutoConfig`` gives it.
    """
    find = getattr(config, "get_text_config", None)
    if find is None:
        return config
    try:
        found = find(decoder=True)
    except ValueError:  # Several parts could be meant; only the outer configuration is certain.
        return config
    return config if found is None else found


def max_positions(config: Any) -> int | None:
    """The number of positions that a model has, in tokens; None where its architecture sets no limit.

    Args:
        config: as for :func:`text_config`.
    """
    text = text_config(config)
    for name in ("max_position_embeddings", "max_seq_len"):
        found = getattr(text, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return None


def text_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same part of a ``config.json`` that was only read, where transformers is not to be imported.

    Args:
        config: the object in the file.
    """
    parts = [part for name in _PARTS if isinstance(part := config.get(name), Mapping)]
    return parts[0] if len(parts) == 1 else config


def text_setting(config: Mapping[str, Any], name: str) -> int | None:
    """A size out of a ``config.json``, also where an older architecture calls it otherwise; None if it is not there.

    Args:
        config: the object in the file.
        name: ``hidden_size``, ``num_hidden_layers`` or ``vocab_size``.
    """
    settings = text_settings(config)
    found = next((settings[key] for key in _NAMES[name] if settings.get(key) is not None), None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
