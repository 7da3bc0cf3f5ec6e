"""What ``ogpsa evaluate`` ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.core.making import Made
from pipelines.evaluation.contract.results import Results


@dataclass(frozen=True)
class EvaluateResult(Made):
    """Where the results lie, and the results."""

    results: Results


def summarise(results: Results) -> dict[str, Any]:
    """The headline figures, for the manifest."""
    return {"run": results.run} | {
        suite.suite: {metric.name: round(metric.value, 6) for metric in suite.metrics if metric.headline}
        for suite in results.suites
    }
