"""Results for the tests of reports: small artifacts with items whose figures are known."""

from pathlib import Path

import numpy as np

from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig
from pipelines.evaluation.contract.answer import AnsweredItem, write_answers
from pipelines.evaluation.contract.results import Metric, Results, SuiteResults, SuiteSettings
from pipelines.evaluation.statistics.intervals import mean_interval
from tests.evaluation.test_results import SETTINGS

Scores = dict[str, list[float]]


def suite(name: str, figures: dict[str, list[float]], *, lower=(), unit="share", **settings) -> tuple:
    """A suite whose figures are means of these scores, and its items; a figure's items are a group of their own."""
    metrics, items = [], []
    for figure, scores in figures.items():
        found = mean_interval(np.array(scores, dtype=float), resamples=200, seed=0)
        ends = {"low": found.low, "high": found.high, "interval": found.method} if found else {}
        metrics.append(
            Metric(
                name=figure, value=float(np.mean(scores)), num_items=len(scores), unit=unit,
                higher_is_better=figure not in lower, groups=(figure,), **ends,
            )
        )  # fmt: skip
        items += [
            AnsweredItem(name, f"{figure}/{number}", figure, "p", "a", None, float(score))
            for number, score in enumerate(scores)
        ]
    return SuiteResults(suite=name, settings=SuiteSettings(**(SETTINGS | settings)), metrics=tuple(metrics)), items


def store(path: Path, run: str, *suites: tuple, fingerprint: str = "", inputs=()) -> Path:
    """An artifact of results."""
    results = Results(
        run=run, model=f"models/{run}", model_fingerprint=fingerprint or f"{run}-weights",
        suites=tuple(found for found, _ in suites),
    )  # fmt: skip
    with write_artifact(path, "results", CommandConfig(), list(inputs)) as writer:
        (writer.path / "results.json").write_text(results.to_json())
        write_answers(writer.path, [items for _, items in suites])
    return path


def shares(right: int, total: int) -> list[float]:
    """Scores of which the first ones are right."""
    return [1.0] * right + [0.0] * (total - right)
