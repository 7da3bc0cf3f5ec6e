"""Which tensors share a subspace: each has its own, or those of a layer share one, or all share one."""

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
    """Tensors grouped by the subspace that they share.

    Attributes:
        names: the names of the groups: a tensor's name, a layer's name (``model.layers.3``), or ``all``.
        of: ``[T]``, for each tensor the index of its group.
    """

    names: tuple[str, ...]
    of: tuple[int, ...]


def group_tensors(names: Sequence[str], scope: Scope) -> Groups:
    """The groups of parameters that share a subspace.

    Args:
        names: the names of the T parameters.
        scope: ``"tensor"``, ``"layer"`` or ``"global"``. Tensors that belong to no layer, such as embeddings and the
            last norm, each form a group of their own under ``"layer"``.
    """
    if scope == "global":
        return Groups(("all",), (0,) * len(names))
    keys = list(names) if scope == "tensor" else [_layer_of(name) for name in names]
    order = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return Groups(tuple(order), tuple(order[key] for key in keys))


def _layer_of(name: str) -> str:
    found = _LAYER.match(name)
    return name if found is None else found.group()
