"""How far each step of a chain is, as far as manifests tell; the commands themselves look closer when they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_registry.core.errors import OgpsaError
from data_registry.core.manifest import Manifest, fingerprint_of, is_artifact, read_manifest, verify
from pipelines.configs.lengths import PreparedLength
from pipelines.core.artifact import partial_path
from pipelines.models.files import determining_files
from pipelines.recipes.chain import Step

Word = Literal["up to date", "to do", "begun", "other settings", "in the way"]


@dataclass(frozen=True)
class State:
    """How far a step is.

    Attributes:
        word: the state in a word. ``begun`` means that interrupted work lies there; ``other settings``, that what lies
            there was made differently and would be refused without ``--overwrite``; ``in the way``, that what lies
            there is not an artifact.
        note: what differs, in words for the reader.
    """

    word: Word
    note: str = ""


def states_of(steps: Sequence[Step]) -> dict[str, State]:
    """The state of each step, by name.

    Files that no step of the chain makes (a model, raw data) are not compared: that would take reading all of them.

    Args:
        steps: the steps in order.
    """
    states: dict[str, State] = {}
    by_name = {step.name: step for step in steps}
    for step in steps:
        states[step.name] = _state(step, by_name, states)
    return states


def _state(step: Step, by_name: Mapping[str, Step], states: Mapping[str, State]) -> State:
    target = step.out
    if not target.exists():
        # The command works where its settled options say.
        config = step.config.settled() if isinstance(step.config, PreparedLength) else step.config
        return State("begun") if _has_files(partial_path(target, config)) else State("to do")
    if not is_artifact(target):
        is_empty = target.is_dir() and not any(target.iterdir())
        return State("to do") if is_empty else State("in the way", "it is no artifact of ogpsa")
    try:
        manifest = read_manifest(target)
        damage = verify(target, manifest, hashes=False)
    except OgpsaError as error:
        return State("other settings", error.what)
    if damage:
        return State("other settings", damage[0])
    differing = step.config.differences(manifest.config)
    if differing:
        return State("other settings", ", ".join(differing))
    used = {record.fingerprint for record in manifest.inputs}
    for name in step.needs:
        if states[name].word != "up to date":
            return State("to do", f"after {name}")
        if _hands_on(by_name[name], step) and not used & _fingerprints(by_name[name].out):
            return State("other settings", f"{name} was made anew since")
    return State("up to date")


def _hands_on(earlier: Step, later: Step) -> bool:
    """Whether the later step reads what the earlier one makes, rather than only coming after it."""
    values = [item for _, value in later.config for item in (value if isinstance(value, list) else [value])]
    return str(earlier.out) in map(str, values)


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(path.is_file() for path in folder.rglob("*"))


def _fingerprints(artifact: Path) -> set[str]:
    """The fingerprints that may stand for this artifact: of all its files, or of those that determine it as a model."""
    manifest: Manifest = read_manifest(artifact)
    names = {path.relative_to(artifact).as_posix() for path in determining_files(artifact)}
    model = {name: record for name, record in manifest.files.items() if name in names}
    return {manifest.fingerprint, fingerprint_of(model)}
