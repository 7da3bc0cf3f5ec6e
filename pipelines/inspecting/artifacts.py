"""What an artifact is, what it was made from, and whether it is intact."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_registry.core.errors import InputError, OgpsaError
from data_registry.core.manifest import InputRecord, Manifest, hash_file, is_artifact, read_manifest, verify
from pipelines.configs.tools import InspectConfig
from pipelines.core import unfinished
from pipelines.core.leftovers import Leftover, leftovers_of
from pipelines.models.summary import ModelSummary, is_model, summarize_model

State = Literal["intact", "present", "moved", "changed", "damaged", "gone", "remote"]
_MAX_DEPTH = 20
# A moved input is looked for this many folders up and down.
_MOVED_LEVELS = 4
# Inputs that are part of the program.
_BUILT_IN = ("embedded", "entry", "suite")
# Hashes of what a command made of its options and inputs: nothing that could lie anywhere.
_DERIVED = ("prompts", "format")


@dataclass(frozen=True)
class Ancestor:
    """One input in the lineage of an artifact.

    Attributes:
        role: the part that it played, such as ``chat template``.
        path: where it lay; where it lies now if it was moved.
        kind: data set, basis, run, model, file ...
        state: ``intact`` (there and as it was), ``present`` (there, contents not compared), ``moved``, ``changed``
            (something else lies there now), ``damaged``, ``gone``, or ``remote`` (on the hub).
        note: what exactly, where the state does not say it.
        inputs: the inputs that it was itself made from.
    """

    role: str
    path: str
    kind: str
    state: State
    note: str = ""
    inputs: tuple[Ancestor, ...] = ()


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


def inspect(config: InspectConfig) -> Inspection:
    """Inspect what lies at a path.

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
        inputs=_ancestors(manifest, path, hashes=not config.fast, depth=0),
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


# --- Lineage -----------------------------------------------------------------------------------------------------


def _ancestors(manifest: Manifest, path: Path, *, hashes: bool, depth: int) -> tuple[Ancestor, ...]:
    """The lineage of an artifact as a tree, as far as its inputs are found."""
    if depth >= _MAX_DEPTH:
        return ()
    return tuple(_ancestor(record, path, hashes=hashes, depth=depth) for record in manifest.inputs)


def _ancestor(record: InputRecord, made: Path, *, hashes: bool, depth: int) -> Ancestor:
    place = Path(record.path)
    if is_artifact(place):
        found = _read(place)
        if found is not None and found.fingerprint == record.fingerprint:
            return _artifact(record, place, found, "intact", hashes=hashes, depth=depth)
    moved = _look_nearby(record, made)
    if moved is not None:
        found = _read(moved)
        assert found is not None
        return _artifact(record, moved, found, "moved", hashes=hashes, depth=depth)
    state, note = _state_of_plain(record, place, hashes=hashes)
    return Ancestor(record.role, record.path, record.kind, state, note)


def _artifact(
    record: InputRecord, place: Path, manifest: Manifest, state: State, *, hashes: bool, depth: int
) -> Ancestor:
    problems = verify(place, manifest, hashes=hashes)
    note = f"was {record.path}" if state == "moved" else ""
    inputs = _ancestors(manifest, place, hashes=hashes, depth=depth + 1)
    if problems:
        state, note = "damaged", problems[0]
    return Ancestor(record.role, str(place), record.kind, state, note, inputs)


def _state_of_plain(record: InputRecord, place: Path, *, hashes: bool) -> tuple[State, str]:
    """The state of an input that is no artifact, or no longer the artifact that it was."""
    if record.kind in _BUILT_IN:
        return "present", "comes with ogpsa"
    if record.kind in _DERIVED:
        return "present", "from the options"
    if not place.exists():
        is_commit = len(record.fingerprint) == 40
        return ("remote", f"hub, commit {record.fingerprint[:12]}") if is_commit else ("gone", "")
    if is_artifact(place):
        return "changed", "another artifact lies there now"
    if not hashes:
        return "present", "not compared"
    try:
        now = _fingerprint(record, place)
    except (OgpsaError, OSError) as error:
        return "damaged", str(error).splitlines()[0]
    if now is None:
        return "present", "not compared"
    return ("intact", "") if now == record.fingerprint else ("changed", "other contents lie there now")


def _fingerprint(record: InputRecord, place: Path) -> str | None:
    """What the fingerprint would be today; None for kinds that only their own command knows how to take."""
    if place.is_file():
        # Some sources are recorded with more than their content; only a plain content hash can be compared.
        return hash_file(place) if len(record.fingerprint) == 64 else None
    if record.kind == "model":
        from pipelines.models.reference import resolve_model

        return resolve_model(str(place)).fingerprint()
    return None


def _read(path: Path) -> Manifest | None:
    try:
        return read_manifest(path)
    except OgpsaError:
        return None


def _look_nearby(record: InputRecord, made: Path) -> Path | None:
    """The input in the same place relative to what was made from it: a folder was moved as a whole."""
    parts = Path(record.path).parts
    for parent in Path(os.path.abspath(made)).parents[:_MOVED_LEVELS]:
        for depth in range(1, min(_MOVED_LEVELS, len(parts) - 1) + 1):
            candidate = parent.joinpath(*parts[-depth:])
            manifest = _read(candidate) if is_artifact(candidate) else None
            if manifest is not None and (manifest.kind, manifest.fingerprint) == (record.kind, record.fingerprint):
                return candidate
    return None


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
        "manifest": found.manifest.model_dump(mode="json") if found.manifest else None,
    }
