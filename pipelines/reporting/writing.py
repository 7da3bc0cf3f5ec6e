"""A report written: tables, charts, the page, and what was read for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_registry.core.manifest import InputRecord
from pipelines import drawing
from pipelines.configs.report import ReportConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.reporting import page, tables
from pipelines.reporting.background import look_behind
from pipelines.reporting.bars import draw_bars
from pipelines.reporting.chart import draw_tradeoff
from pipelines.reporting.contents import Report
from pipelines.reporting.runs import Run
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


def write_report(report: Report, config: ReportConfig, writer: ArtifactWriter) -> None:
    """All files of the report.

    Raises:
        ArtifactError: stored answers cannot be read.
    """
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
    background = look_behind(report, config)
    (folder / PAGE_FILE).write_text(page.render(report, background, tradeoff=tradeoff, bars=bars), encoding="utf-8")
    writer.summary = _summarise(report)


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
