"""The work of ``ogpsa inspect``: what an artifact is, what it was made from, and whether it is intact."""

from __future__ import annotations

from pipelines.configs.tools import InspectConfig
from pipelines.inspecting.artifacts import Inspection, inspect


def run(config: InspectConfig) -> Inspection:
    """Inspect what lies at a path.

    Raises:
        InputError: nothing is there, or what is there is neither an artifact nor a model.
        ArtifactError: the manifest is damaged or has a newer schema.
        Preempted: the artifact is unfinished because its command was asked to stop.
    """
    return inspect(config)
