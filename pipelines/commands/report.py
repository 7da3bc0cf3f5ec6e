"""The work of ``ogpsa report``: results side by side, as tables, charts and one page."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.configs.report import ReportConfig
from pipelines.core.making import Made, Wanted, make
from pipelines.reporting.contents import Report, make_report, read_report
from pipelines.reporting.writing import KIND, describe, report_inputs, write_report


@dataclass(frozen=True)
class ReportResult(Made):
    """Where the report lies, and what it says."""

    report: Report


def run(config: ReportConfig) -> ReportResult:
    """Write a report; does nothing where the same one is there already.

    Raises:
        ConfigError: the start or a figure that was named does not exist.
        InputError: results are missing, cannot be told apart, or were measured under different settings.
        ArtifactError: results do not verify, or something else lies at ``--out``.
    """
    runs, start = read_report(config)
    report = make_report(config, runs, start)
    wanted = Wanted(config.out, KIND, config, report_inputs(runs), overwrite=config.overwrite)
    made = make(wanted, lambda writer: write_report(report, config, writer))
    return ReportResult(made.path, made.manifest, made.up_to_date, report)


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
