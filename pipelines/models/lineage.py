"""Which model of the hub a chain of runs began with, as their manifests tell it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from data_registry.core.errors import OgpsaError
from data_registry.core.manifest import InputRecord, read_manifest

# What a model was made from, the most original first: a run from an adapter has both it and the model below.
_ROLES = ("base", "model", "finetuned")
_IN_CACHE = re.compile(r"models--([^/]+)/snapshots/[^/]+/?$")


def hub_base(inputs: Sequence[InputRecord]) -> str | None:
    """The id of the model on the hub at the beginning of the chain; None where a local model is, or nobody knows.

    Args:
        inputs: the records of what a model was made from.
    """
    seen: set[str] = set()
    while True:
        by_role = {record.role: record for record in inputs}
        record = next((by_role[role] for role in _ROLES if role in by_role), None)
        if record is None or record.path in seen:
            return None
        seen.add(record.path)
        path = Path(record.path)
        if record.kind == "model" and not path.is_absolute():
            return record.path
        in_cache = _IN_CACHE.search(record.path)
        if in_cache is not None:
            # A folder of the hub's cache that was named as a directory.
            return in_cache[1].replace("--", "/")
        try:
            inputs = read_manifest(path).inputs
        except (OgpsaError, OSError):
            return None
