"""The lineage of artifacts: what each was made from, and what of that is still there as it was.

An ancestor may be reached in many ways: a chain that trains each model with a basis made from the model before doubles
its paths with every stage. Each ancestor is therefore read, compared and spelled out once, where it comes first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from data_registry.core.errors import OgpsaError, first_line
from data_registry.core.manifest import InputRecord, Manifest, hash_file, is_artifact, read_manifest, verify

State = Literal["intact", "present", "moved", "changed", "damaged", "gone", "remote"]
SEE_ABOVE: Final = "its inputs: see above"
_TOO_DEEP: Final = "its inputs are not looked at: inspect it by itself"
# A tree that is deeper cannot be read; whoever shows it walks through it with one call inside another.
_MAX_DEPTH = 100
# A moved input is looked for this many folders up and down.
_MOVED_LEVELS = 4
# Inputs that are part of the program.
_BUILT_IN = ("embedded", "entry", "suite", "judge")
# Hashes of what a command made of its options and inputs: nothing that could lie anywhere.
_DERIVED = ("prompts", "format")
# What a command takes of an artifact without the rest: its fingerprint is not that of the artifact.
_PARTS = ("tokenizer",)


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
        inputs: the inputs that it was itself made from; empty where it came before, which the note then says.
    """

    role: str
    path: str
    kind: str
    state: State
    note: str = ""
    inputs: tuple[Ancestor, ...] = ()


class Lineage:
    """Looks at ancestors and remembers what it has seen; several artifacts that are shown together share one.

    Args:
        hashes: compare contents too, not only presence and size.
    """

    def __init__(self, *, hashes: bool) -> None:
        self._hashes = hashes
        self._problems: dict[tuple[str, str], list[str]] = {}
        self._manifests: dict[Path, Manifest | None] = {}
        self._plain: dict[tuple[str, str, str], tuple[State, str]] = {}
        self._shown: set[tuple[str, str]] = set()

    def of(self, manifest: Manifest, path: Path) -> tuple[Ancestor, ...]:
        """The inputs of an artifact as a tree, as far as they are found.

        Args:
            manifest: the artifact's manifest.
            path: the artifact's directory.
        """
        self._shown.add(_key(path, manifest))
        return self._ancestors(manifest, path, depth=0)

    def _ancestors(self, manifest: Manifest, path: Path, *, depth: int) -> tuple[Ancestor, ...]:
        return tuple([self._ancestor(record, path, depth) for record in manifest.inputs])

    def _ancestor(self, record: InputRecord, made: Path, depth: int) -> Ancestor:
        place = Path(record.path)
        found = self._read(place)
        if found is not None and found.fingerprint == record.fingerprint:
            return self._artifact(record, place, found, "intact", depth)
        moved = self._look_nearby(record, made)
        if moved is not None:
            return self._artifact(record, *moved, "moved", depth)
        key = (record.path, record.kind, record.fingerprint)
        if key not in self._plain:
            self._plain[key] = _state_of_plain(record, place, hashes=self._hashes)
        return Ancestor(record.role, record.path, record.kind, *self._plain[key])

    def _artifact(self, record: InputRecord, place: Path, manifest: Manifest, state: State, depth: int) -> Ancestor:
        key = _key(place, manifest)
        if key not in self._problems:
            self._problems[key] = verify(place, manifest, hashes=self._hashes)
        problems = self._problems[key]
        notes = [f"was {record.path}"] if state == "moved" else []
        if problems:
            state, notes = "damaged", [problems[0]]
        inputs: tuple[Ancestor, ...] = ()
        if manifest.inputs and key in self._shown:
            notes.append(SEE_ABOVE)
        elif manifest.inputs and depth + 1 >= _MAX_DEPTH:
            notes.append(_TOO_DEEP)
        else:
            self._shown.add(key)
            inputs = self._ancestors(manifest, place, depth=depth + 1)
        return Ancestor(record.role, str(place), record.kind, state, ", ".join(notes), inputs)

    def _read(self, place: Path) -> Manifest | None:
        if place not in self._manifests:
            self._manifests[place] = _manifest_at(place)
        return self._manifests[place]

    def _look_nearby(self, record: InputRecord, made: Path) -> tuple[Path, Manifest] | None:
        """The input in the same place relative to what was made from it: a folder was moved as a whole."""
        parts = Path(record.path).parts
        for parent in Path(os.path.abspath(made)).parents[:_MOVED_LEVELS]:
            for depth in range(1, min(_MOVED_LEVELS, len(parts) - 1) + 1):
                candidate = parent.joinpath(*parts[-depth:])
                manifest = self._read(candidate)
                if manifest is not None and (manifest.kind, manifest.fingerprint) == (record.kind, record.fingerprint):
                    return candidate, manifest
        return None


def _key(place: Path, manifest: Manifest) -> tuple[str, str]:
    return os.path.realpath(place), manifest.fingerprint


def _manifest_at(place: Path) -> Manifest | None:
    try:
        return read_manifest(place) if is_artifact(place) else None
    except (OgpsaError, OSError, ValueError):
        # The name of an input is whatever a manifest says: too long for a path, or with a character that none has.
        return None


def _state_of_plain(record: InputRecord, place: Path, *, hashes: bool) -> tuple[State, str]:
    """The state of an input that is no artifact, or no longer the artifact that it was."""
    if record.kind in _BUILT_IN:
        return "present", "comes with ogpsa"
    if record.kind in _DERIVED:
        return "present", "from the options"
    try:
        if not place.exists():
            is_commit = len(record.fingerprint) == 40
            return ("remote", f"hub, commit {record.fingerprint[:12]}") if is_commit else ("gone", "")
        if is_artifact(place) and record.kind not in _PARTS:
            return "changed", "another artifact lies there now"
        if not hashes:
            return "present", "not compared"
        now = _fingerprint(record, place)
    except (OgpsaError, OSError, ValueError) as error:
        return "damaged", first_line(error)
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
