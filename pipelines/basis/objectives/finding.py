"""Reference losses by name."""

from __future__ import annotations

import importlib

from data_registry.core.errors import ArtifactError
from pipelines.basis.objectives.reference_loss import ReferenceLoss
from pipelines.configs.objectives import OBJECTIVES


def reference_loss(name: str) -> ReferenceLoss:
    """The reference loss with the name that an option or a basis gives.

    Raises:
        ArtifactError: there is no such loss; the name then comes from a basis that another version wrote.
    """
    if name not in OBJECTIVES:
        raise ArtifactError(
            f"the basis has the objective '{name}', and this version knows {', '.join(OBJECTIVES)}",
            fix="use the version that built it, or build the basis again",
        )
    module, _, found = OBJECTIVES[name].target.partition(":")
    loss: ReferenceLoss = getattr(importlib.import_module(module), found)()
    return loss
