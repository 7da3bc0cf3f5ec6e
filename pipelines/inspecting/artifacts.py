"""What an artifact is, what it was made from, and whether it is intact."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_registry.core.errors import InputError
from data_registry.core.manifest import Manifest, is_artifact, read_manifest, verify
from data_registry.core.redaction import hide_arguments, hide_values
from pipelines.configs.tools import InspectConfig
from pipelines.core import unfinished
from pipelines.core.leftovers import Leftover, leftovers_of
from pipelines.inspecting.lineage import Ancestor, Lineage
from pipelines.models.summary import ModelSummary, is_model, summarize_model


@dataclass(frozen=True)
class Inspection:
    """What was found at a path.

    Attributes:
        path: the directory.
        kind: the kind of the artifact; ``model`` for a model directory without manifest.
        manifest: None for such a model.
        problems: why it does not verify; empty when it does.
        compared: whether contents were compared or only sizes.
        inputs: its lineage.
        model: figures of the model in it, if there is one.
        leftovers: what interrupted and superseded runs left beside it and in it.
    """

    path: Path
    kind: str
    manifest: Manifest | None
    problems: tuple[str, ...]
    compared: bool
    inputs: tuple[Ancestor, ...] = ()
    model: ModelSummary | None = None
    size_bytes: int = field(default=0)
    leftovers: tuple[Leftover, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Whether the artifact verifies."""
        return not self.problems


def inspect(config: InspectConfig, lineage: Lineage | None = None) -> Inspection:
    """Inspect what lies at a path.

    Args:
        config: the path, and whether contents are compared.
        lineage: what was looked at before, for several artifacts that are shown together; None starts anew.

    Raises:
        InputError: nothing is there, or neither an artifact nor a model.
        ArtifactError: the manifest is damaged or of a newer schema.
        Preempted: what would lie there is unfinished, since its command was asked to stop.
    """
    path = config.path
    unfinished.check(path)
    if path.is_file():
        raise InputError(
            f"'{path}' is a file; artifacts are directories",
            fix=f"its directory:  ogpsa inspect {path.parent}" if is_artifact(path.parent) else None,
        )
    if path.is_dir() and not is_artifact(path):
        return _inspect_plain(path)
    manifest = read_manifest(path)
    problems = verify(path, manifest, hashes=not config.fast)
    folder = next((folder for folder in (path, path / "model") if is_model(folder)), None)
    return Inspection(
        path=path,
        kind=manifest.kind,
        manifest=manifest,
        problems=tuple(problems),
        compared=not config.fast,
        inputs=(lineage or Lineage(hashes=not config.fast)).of(manifest, path),
        model=summarize_model(folder) if folder else None,
        size_bytes=sum(record.size for record in manifest.files.values()),
        leftovers=tuple(leftovers_of(path)),
    )


def _inspect_plain(path: Path) -> Inspection:
    """What can be said of a directory that is no artifact."""
    if not is_model(path):
        below = sorted(child.name for child in path.iterdir() if child.is_dir() and is_artifact(child))
        raise InputError(
            f"'{path}' is neither an artifact of ogpsa (no manifest.json) nor a model (no config.json)",
            fix=f"one of these in it: {', '.join(below[:5])}" if below else None,
        )
    summary = summarize_model(path)
    return Inspection(
        path=path,
        kind="adapter" if summary.adapts else "model",
        manifest=None,
        problems=summary.problems,
        compared=False,
        model=summary,
        size_bytes=summary.size_bytes,
    )


def as_json(found: Inspection) -> dict[str, Any]:
    """An inspection as plain values."""
    from dataclasses import asdict

    return {
        "path": str(found.path),
        "kind": found.kind,
        "intact": found.is_intact,
        "compared": "contents" if found.compared else "sizes",
        "problems": list(found.problems),
        "size_bytes": found.size_bytes,
        "leftovers": [
            {"path": str(each.path), "kind": each.kind, "size_bytes": each.size_bytes} for each in found.leftovers
        ],
        "model": asdict(found.model) if found.model else None,
        "lineage": [asdict(ancestor) for ancestor in found.inputs],
        "manifest": _manifest_values(found.manifest) if found.manifest else None,
    }


def _manifest_values(manifest: Manifest) -> dict[str, Any]:
    # What an older version, or another program, wrote may hold tokens.
    values: dict[str, Any] = hide_values(manifest.model_dump(mode="json"))
    return values | {"command": hide_arguments(manifest.command)}
