"""What ``ogpsa evaluate`` ends with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_registry.core.manifest import Manifest
from pipelines.evaluation.contract.results import Results


@dataclass(frozen=True)
class EvaluateResult:
    """Where the results lie, and the results."""

    path: Path
    manifest: Manifest
    up_to_date: bool
    results: Results


def summarise(results: Results) -> dict[str, Any]:
    """The headline figures, for the manifest."""
    return {"run": results.run} | {
        suite.suite: {metric.name: round(metric.value, 6) for metric in suite.metrics if metric.headline}
        for suite in results.suites
    }
