"""Prepared data sets as suites read them: of one task, drawn from, and told apart by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_registry.core.errors import ConfigError, InputError
from data_registry.core.manifest import InputRecord, Manifest, as_input
from data_registry.prepared import load_prepared
from pipelines.evaluation.contract.suite import SuiteRequest

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class PreparedData:
    """One data set: its name, rows drawn from it, their numbers in it, and where it came from."""

    name: str
    path: Path
    rows: datasets.Dataset
    numbers: list[int]
    manifest: Manifest

    @property
    def split(self) -> str:
        """The part of its source that it was made from."""
        return str(self.manifest.config.get("split", "all"))


def open_prepared(request: SuiteRequest, task: str) -> list[PreparedData]:
    """The data sets of a request, with a seeded draw of their rows.

    Raises:
        ConfigError: two have one name.
        InputError: one is empty, was not prepared, or is for another task.
        ArtifactError: one does not verify.
    """
    names = [path.resolve().name for path in request.data]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two data sets of --data are called '{twice[0]}'; give one of them another name")
    return [_open(name, path, request, task) for name, path in zip(names, request.data, strict=True)]


def data_inputs(data: Sequence[PreparedData]) -> list[InputRecord]:
    """Records of the data sets."""
    return [as_input("data", entry.path, entry.manifest) for entry in data]


def _open(name: str, path: Path, request: SuiteRequest, task: str) -> PreparedData:
    rows, manifest = load_prepared(path, task=task)
    if len(rows) == 0:
        raise InputError(f"the data set '{path}' is empty")
    numbers = np.arange(len(rows))
    if request.num_samples is not None and request.num_samples < len(rows):
        generator = np.random.default_rng(request.seed)
        numbers = np.sort(generator.permutation(len(rows))[: request.num_samples])
    return PreparedData(name, path, rows.select(numbers), numbers.tolist(), manifest)
