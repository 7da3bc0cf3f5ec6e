"""Writes the figures of a study as a table, and as the record that is kept beside the study."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.studies.study import Grid, Run
from data_registry.core.errors import ConfigError
from pipelines.core import environment
from pipelines.evaluation.contract.results import Metric, read_results

# The metrics by cell, then by repetition, then by heading.
Figures = dict[str, dict[str, dict[str, Metric]]]


def read_figures(grid: Grid, runs: Sequence[Run]) -> Figures:
    """Read the figures of finished runs.

    Raises:
        ConfigError: the measured step lacks a figure that the study names.
    """
    found: Figures = {}
    for run in runs:
        results = read_results(run.results)
        for heading, name in grid.study.figures.items():
            suite, _, metric = name.rpartition(".")
            figure = results.metric(suite, metric)
            if figure is None:
                known = [f"{entry.suite}.{each.name}" for entry in results.suites for each in entry.metrics]
                raise ConfigError(f"figures: there is no '{name}'; there are {', '.join(known)}")
            found.setdefault(run.cell, {}).setdefault(run.repetition, {})[heading] = figure
    return found


def to_markdown(figures: Figures, headings: Sequence[str]) -> str:
    """A Markdown table of means and, for several repetitions, minimum and maximum; shares are in per cent."""
    lines = [f"| | {' | '.join(headings)} |", "| --- |" + " --- |" * len(headings)]
    for cell, by_repetition in figures.items():
        columns = [[found[heading] for found in by_repetition.values()] for heading in headings]
        lines.append(f"| {cell} | {' | '.join(map(_spread, columns))} |")
    return "\n".join(lines) + "\n"


def _spread(metrics: Sequence[Metric]) -> str:
    values = [metric.value for metric in metrics]
    unit = metrics[0].unit
    if len(values) == 1:
        return _shown(values[0], unit)
    low, high = _shown(min(values), unit), _shown(max(values), unit)
    return f"{_shown(statistics.mean(values), unit)} ({low} to {high})"


def _shown(value: float, unit: str) -> str:
    return f"{100 * value:.1f}" if unit == "share" else f"{value:.4f}"


def to_record(name: str, figures: Figures, changed: Sequence[str]) -> str:
    """The figures as JSON text, with the day, versions and machine.

    Args:
        name: the name of the study.
        figures: the figures of all cells.
        changed: the changes that ``--set`` gave.
    """
    cells: Mapping[str, Any] = {
        cell: {
            repetition: {heading: metric.value for heading, metric in found.items()}
            for repetition, found in by_repetition.items()
        }
        for cell, by_repetition in figures.items()
    }
    record = {
        "study": name,
        "date": datetime.now(UTC).date().isoformat(),
        "environment": environment.describe(),
        "changed": list(changed),
        "figures": cells,
    }
    return json.dumps(record, indent=1) + "\n"
