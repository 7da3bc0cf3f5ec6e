"""The files that lm-eval writes: ``results_DATE.json``, and ``samples_TASK_DATE.jsonl`` beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_registry.core.errors import InputError, first_line
from data_registry.core.manifest import hash_file
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Results
from pipelines.evaluation.lm_eval.results import convert


@dataclass(frozen=True)
class LmEvalFile:
    """What a result file of lm-eval holds, as ours.

    Attributes:
        results: the figures of the file.
        items: the samples by suite, for tasks whose samples lie beside it.
        fingerprint: the fingerprint of all files that were read.
    """

    results: Results
    items: Mapping[str, Sequence[AnsweredItem]]
    fingerprint: str


def looks_like_results(path: Path) -> bool:
    """Whether a file has the name that lm-eval gives its results."""
    return path.name.startswith("results_") and path.suffix == ".json"


def read_lm_eval(path: Path, *, resamples: int, seed: int) -> LmEvalFile:
    """Read a result file of lm-eval and the samples beside it.

    Args:
        path: the JSON file.
        resamples: the number of resamples that the bootstrap over samples draws.
        seed: the seed of the bootstrap.

    Raises:
        InputError: the file is no result of lm-eval, or is damaged.
    """
    found = _read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("results"), dict) or "versions" not in found:
        raise InputError(
            f"'{path}' is not a result file of lm-eval",
            where="it lacks 'results' and 'versions'",
            fix="name results that ogpsa evaluate wrote, or lm-eval's results_*.json",
        )
    files = {task: file for task in found["results"] if (file := _samples_file(path, task)) is not None}
    samples = {task: _read_lines(file) for task, file in files.items()}
    config = found.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    name = str(found.get("model_name") or model or path.parent.name)
    try:
        outcomes = convert(found, samples, resamples=resamples, seed=seed)
        results = Results(
            run=name.rstrip("/").rpartition("/")[2],
            model=name,
            model_fingerprint=f"not stored by lm-eval ({name})",
            suites=tuple(outcome.results for outcome in outcomes),
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"'{path}' cannot be read as a result of lm-eval: {type(error).__name__}: {first_line(error)}",
            where=str(path),
        ) from error
    items = {outcome.results.suite: outcome.items for outcome in outcomes}
    return LmEvalFile(results, items, _fingerprint(path, list(files.values())))


def _fingerprint(path: Path, samples: Sequence[Path]) -> str:
    own = hash_file(path)
    if not samples:
        return own
    # Longer than a plain content hash, which is what `inspect` may compare with the file alone.
    return f"{own}+{hashlib.sha256(''.join(map(hash_file, samples)).encode()).hexdigest()}"


def _samples_file(path: Path, task: str) -> Path | None:
    try:
        # No file can be called like a task whose name has a slash, or is too long.
        file = path.with_name(f"samples_{task}_{path.stem.partition('_')[2]}.jsonl")
        return file if file.is_file() else None
    except (OSError, ValueError):
        return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' cannot be read: {first_line(error)}", where=str(path)) from error


def _read_lines(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' cannot be read: {first_line(error)}", where=str(path)) from error
