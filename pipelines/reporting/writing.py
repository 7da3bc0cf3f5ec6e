"""A report written: tables, charts, the page, and what was read for it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from data_registry.core.manifest import InputRecord
from data_registry.core.redaction import hide_arguments
from pipelines import drawing
from pipelines.configs.tools import InspectConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.inspecting import artifacts
from pipelines.inspecting.lineage import Lineage
from pipelines.reporting import page, tables
from pipelines.reporting.bars import draw_bars
from pipelines.reporting.chart import draw_tradeoff
from pipelines.reporting.contents import Report
from pipelines.reporting.runs import Run, Source
from pipelines.reporting.tradeoff import CAPTION

KIND = "report"
PAGE_FILE = "report.html"


def describe(row: Run) -> str:
    """Where the results of a run come from, in one line."""
    return f"{row.name}: " + ", ".join(f"{', '.join(source.suites)} from {source.path}" for source in row.sources)


def report_inputs(runs: Sequence[Run]) -> list[InputRecord]:
    """One record for each source; a run's name is part of the report, so it is part of the role."""
    return [
        source.record.model_copy(update={"role": f"results of {row.name}"}) for row in runs for source in row.sources
    ]


def write_report(report: Report, writer: ArtifactWriter) -> None:
    """All files of the report."""
    folder = writer.path
    (folder / "table.md").write_text(tables.to_markdown(report), encoding="utf-8")
    (folder / "table.csv").write_text(report.table.to_csv(), encoding="utf-8")
    if report.comparisons:
        (folder / "comparisons.csv").write_text(tables.comparisons_csv(report.comparisons), encoding="utf-8")
    tradeoff = None
    if report.tradeoff is not None:
        chart = report.tradeoff
        points = draw_tradeoff(
            chart.points, capability_label=chart.capability_label, safety_label=chart.safety_label, caption=CAPTION
        )
        drawing.save(points, folder / "tradeoff.png", folder / "tradeoff.svg")
        tradeoff = page.embed(points, f"Chart: {chart.safety_label} against {chart.capability_label}, one point a run")
    names = [row.name for row in report.runs]
    groups = draw_bars(report.figures, names, start=report.start.name if report.start else None)
    drawing.save(groups, folder / "figures.png", folder / "figures.svg")
    bars = page.embed(groups, "Bars: every figure of the table above, grouped by figure, one bar a run")
    seen = Lineage(hashes=False)
    lineage = [_lineage(row, seen) for row in report.runs]
    (folder / PAGE_FILE).write_text(page.render(report, lineage, tradeoff=tradeoff, bars=bars), encoding="utf-8")
    writer.summary = _summarise(report)


def _lineage(row: Run, seen: Lineage) -> page.ShownRun:
    sources = tuple(_source(source, seen) for source in row.sources)
    return page.ShownRun(row.name, row.results.model, row.results.model_fingerprint, sources)


def _source(source: Source, seen: Lineage) -> page.ShownSource:
    if not source.is_artifact:
        return page.ShownSource(source.record.kind, str(source.path), "", ())
    found = artifacts.inspect(InspectConfig(path=source.path, fast=True), seen)
    command = shlex.join(hide_arguments(found.manifest.command)) if found.manifest else ""
    return page.ShownSource("results", str(source.path), command, found.inputs)


def _summarise(report: Report) -> dict[str, Any]:
    """The figures of the manifest."""
    summary: dict[str, Any] = {"runs": len(report.runs), "figures": len(report.figures)}
    if report.start is not None:
        summary["start"] = report.start.name
        summary["gain_percent"] = {
            gain.run: round(gain.value, 3) if gain.value is not None else None for gain in report.gains
        }
        summary["gain_over"] = [figure.heading for figure in report.benchmarks]
    return summary
