"""Whether a model's weights are stored quantised, as its configuration or its tensors say; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_KEY = "quantization_config"
# What methods of quantisation store beside, or in place of, a weight.
_MARKS = (
    *(".qweight", ".qzeros", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".weight.absmax"),
    *(".weight.quant_map", ".weight.nested_absmax", ".SCB", "_blocks", "_scales"),
)
_INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")


@dataclass(frozen=True)
class Quantised:
    """How the weights of a model are quantised.

    Attributes:
        setting: the place in ``config.json`` that says so.
        kind: the method, such as ``bitsandbytes, 4 bits``; empty where the configuration does not name it.
    """

    setting: str
    kind: str

    def __str__(self) -> str:
        """In the words of a message."""
        return "quantised" + (f" ({self.kind})" if self.kind else "")


def quantised_as(config: Mapping[str, Any]) -> Quantised | None:
    """How a model is quantised; None if it is not.

    Args:
        config: the object in its ``config.json``; models with several parts may say it of one part.
    """
    parts = {"": config, **{f"{name}.": part for name, part in config.items() if isinstance(part, Mapping)}}
    for place, part in parts.items():
        settings = part.get(_KEY)
        if settings is not None:
            return Quantised(f"{place}{_KEY}", _kind(settings) if isinstance(settings, Mapping) else "")
    return None


def is_quantised_tensor(name: str, dtype: str) -> bool:
    """Whether a tensor on disk is part of a quantised weight; libraries would take its codes for the weight's values.

    Args:
        name: the tensor's name.
        dtype: its dtype, as safetensors calls it.
    """
    return name.endswith(_MARKS) or (name.endswith(".weight") and dtype in _INTEGERS)


def _kind(settings: Mapping[str, Any]) -> str:
    method, bits = settings.get("quant_method"), settings.get("bits")
    for number in (4, 8):
        if settings.get(f"load_in_{number}bit"):
            # Configurations of the first years have this alone, and do not name the method.
            method, bits = method or "bitsandbytes", number
    known = [str(method)[:40]] if method else []
    return ", ".join([*known, *([f"{bits} bits"] if isinstance(bits, int) else [])])
