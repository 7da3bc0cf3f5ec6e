"""The work of ``ogpsa inspect``: what an artifact is, what it was made from, and whether it is intact."""

from __future__ import annotations

from pipelines.configs.tools import InspectConfig
from pipelines.inspecting.artifacts import Inspection, inspect


def run(config: InspectConfig) -> Inspection:
    """Inspect what lies at a path.

    Raises:
        InputError: nothing is there, or neither an artifact nor a model.
        ArtifactError: the manifest is damaged or of a newer schema.
        Preempted: what would lie there is unfinished, since its command was asked to stop.
    """
    return inspect(config)
