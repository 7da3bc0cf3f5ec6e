"""Recipe of ``ogpsa report``: results side by side, as tables, charts and one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_registry.core.manifest import Manifest, read_manifest
from pipelines.configs.report import ReportConfig
from pipelines.core.artifact import find_finished, write_artifact
from pipelines.reporting.contents import Report, make_report, read_report
from pipelines.reporting.writing import KIND, describe, report_inputs, summarise, write_report


@dataclass(frozen=True)
class ReportResult:
    """Where the report lies, and what it says."""

    path: Path
    manifest: Manifest
    up_to_date: bool
    report: Report


def run(config: ReportConfig) -> ReportResult:
    """Write a report; does nothing where the same one is there already.

    Raises:
        ConfigError: the start or a figure that was named does not exist.
        InputError: results are missing, cannot be told apart, or were measured under unlike settings.
        ArtifactError: results do not verify, or something else lies at ``--out``.
    """
    runs, start = read_report(config)
    report = make_report(config, runs, start)
    inputs = report_inputs(runs)
    finished = find_finished(config.out, KIND, config, inputs, overwrite=config.overwrite)
    if finished is not None:
        return ReportResult(config.out, finished, True, report)
    with write_artifact(config.out, KIND, config, inputs, overwrite=config.overwrite) as writer:
        write_report(report, writer.path)
        writer.summary = summarise(report)
    return ReportResult(config.out, read_manifest(config.out), False, report)


def plan(config: ReportConfig) -> list[tuple[str, str]]:
    """What :func:`run` would put into the report.

    Raises:
        ConfigError: as for :func:`run`.
        InputError: as for :func:`run`.
        ArtifactError: as for :func:`run`.
    """
    runs, start = read_report(config)
    report = make_report(config, runs, start)
    chart = report.tradeoff
    return [
        *((f"run {number}", describe(row)) for number, row in enumerate(runs, start=1)),
        ("start", start.name if start else "none: no gains and no paired tests"),
        ("figures", ", ".join(figure.heading for figure in report.figures)),
        ("gain over", ", ".join(figure.heading for figure in report.benchmarks) if start else "-"),
        (
            "chart",
            f"{chart.safety_label} against {chart.capability_label}" if chart else "none: one axis has no figure",
        ),
        ("output", str(config.out)),
    ]
