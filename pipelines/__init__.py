"""Everything that ogpsa does, from the core at the bottom to one file for each command at the top.

What other programs import from here is in ``__all__`` (docs/python.md); it is loaded when it is first used, so that
``import pipelines`` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api.basis import Basis
    from pipelines.api.building import build_basis
    from pipelines.api.merging import MergedWeights, merge_adapters
    from pipelines.api.optimizer import ProjectedOptimizer
    from pipelines.api.trainer import projected

__all__ = ["Basis", "MergedWeights", "ProjectedOptimizer", "build_basis", "merge_adapters", "projected"]

_MODULES = {
    "Basis": "basis",
    "MergedWeights": "merging",
    "ProjectedOptimizer": "optimizer",
    "build_basis": "building",
    "merge_adapters": "merging",
    "projected": "trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pipelines' has no attribute '{name}'")
    found = getattr(importlib.import_module(f"pipelines.api.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
