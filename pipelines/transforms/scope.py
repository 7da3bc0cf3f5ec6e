"""What shares a subspace: every tensor has one of its own, every layer, or all parameters together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Scope = Literal["tensor", "layer", "global"]

# The first number in a parameter's name is that of its layer; experts and the like come after it.
_LAYER = re.compile(r"(?:.*?\.)??\d+(?=\.)")


@dataclass(frozen=True)
class Groups:
    """Tensors put together.

    Attributes:
        names: of the groups: a tensor's, a layer's (``model.layers.3``), or ``all``.
        of: ``[T]``, the index of each tensor's group.
    """

    names: tuple[str, ...]
    of: tuple[int, ...]


def group_tensors(names: Sequence[str], scope: Scope) -> Groups:
    """The groups of parameters that share a subspace.

    Args:
        names: of the T parameters.
        scope: ``"tensor"``, ``"layer"`` or ``"global"``. Tensors that belong to no layer, such as embeddings and the
            last norm, stay by themselves under ``"layer"``.
    """
    if scope == "global":
        return Groups(("all",), (0,) * len(names))
    keys = list(names) if scope == "tensor" else [_layer_of(name) for name in names]
    order = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return Groups(tuple(order), tuple(order[key] for key in keys))


def _layer_of(name: str) -> str:
    found = _LAYER.match(name)
    return name if found is None else found.group()
