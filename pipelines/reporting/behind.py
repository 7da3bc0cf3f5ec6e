"""The training runs behind results: found through manifests, with their logs; what is not there is named."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from data_registry.core.errors import OgpsaError
from data_registry.core.manifest import Manifest, is_artifact, read_manifest
from pipelines.inspecting.lineage import Ancestor

METRICS_FILE: Final = "metrics.jsonl"
SAMPLES_FILE: Final = "samples.jsonl"
_RUN: Final = "run"
# What a model was trained with, rather than what it was before.
_BESIDE: Final = frozenset({"dataset", "basis", "samples", "mask", "token-weights", "anchor-start", "judge", "prompts"})
_STILL_THERE: Final = frozenset({"intact", "moved", "present"})


@dataclass(frozen=True)
class TrainingRun:
    """A training run that is still there.

    Attributes:
        path: its folder.
        manifest: how it was made.
        metrics: the lines of its log in order, each with its step; damaged ones are left out.
        num_damaged: the number of lines of the log that are none.
    """

    path: Path
    manifest: Manifest
    metrics: tuple[Mapping[str, Any], ...]
    num_damaged: int


@dataclass(frozen=True)
class Behind:
    """What stands behind the results of one run of a report.

    Attributes:
        stages: its training runs, the last one first; empty for a model that was not trained here.
        missing: what should be there and is not, in words.
    """

    stages: tuple[TrainingRun, ...]
    missing: tuple[str, ...]


class Finder:
    """Looks for training runs in lineages, and reads each of them once."""

    def __init__(self) -> None:
        self._inputs: dict[str, Sequence[Ancestor]] = {}
        self._read: dict[Path, TrainingRun] = {}

    def behind(self, inputs: Sequence[Ancestor]) -> Behind:
        """The training runs among the ancestors of results.

        Args:
            inputs: the lineage of the results. An ancestor that several results have is spelled out for the first one
                alone, so they are to be asked for in the order in which they were spelled out.
        """
        self._remember(inputs)
        stages: dict[Path, TrainingRun] = {}
        missing: dict[str, None] = {}
        for ancestor in self._models(inputs, set()):
            place = Path(ancestor.path)
            if ancestor.kind == _RUN and ancestor.state not in _STILL_THERE:
                missing[f"{ancestor.path} ({ancestor.state})"] = None
                continue
            folder = _run_folder(place)
            if folder is None:
                continue
            found = self._training_run(folder)
            if found is None:
                missing[f"{folder} (without {METRICS_FILE})"] = None
            else:
                stages[folder] = found
        return Behind(tuple(stages.values()), tuple(missing))

    def _remember(self, inputs: Sequence[Ancestor]) -> None:
        for ancestor in inputs:
            if ancestor.inputs:
                self._inputs.setdefault(ancestor.path, ancestor.inputs)
            self._remember(ancestor.inputs)

    def _models(self, inputs: Sequence[Ancestor], seen: set[str]) -> Iterator[Ancestor]:
        """The ancestors that are models, nearest first."""
        for ancestor in inputs:
            if ancestor.kind not in _BESIDE and ancestor.path not in seen:
                seen.add(ancestor.path)
                yield ancestor
                yield from self._models(self._inputs.get(ancestor.path, ()), seen)

    def _training_run(self, folder: Path) -> TrainingRun | None:
        if folder not in self._read:
            try:
                manifest = read_manifest(folder)
                lines, damaged = read_lines(folder / METRICS_FILE)
            except (OgpsaError, OSError):
                return None
            metrics = tuple(line for line in lines if _is_step(line.get("step")))
            self._read[folder] = TrainingRun(folder, manifest, metrics, damaged + len(lines) - len(metrics))
        return self._read[folder]


def _run_folder(place: Path) -> Path | None:
    """The training run that a path is, or lies in: results may be of the model folder or of a checkpoint of a run."""
    for folder in (place, *place.parents[:2]):
        try:
            if is_artifact(folder):
                return folder if read_manifest(folder).kind == _RUN else None
        except (OgpsaError, OSError, ValueError):
            return None
    return None


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a file of lines, and how many lines are none: a run that was killed leaves half a line.

    Raises:
        OSError: the file cannot be read.
    """
    lines, damaged = [], 0
    with path.open("rb") as stream:
        for raw in stream:
            if not raw.strip():
                continue
            try:
                value = json.loads(raw)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                lines.append(value)
            else:
                damaged += 1
    return lines, damaged


def _is_step(value: object) -> bool:
    return is_number(value) and float(value) >= 0


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a log can be drawn: a finite number, and no truth value."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
