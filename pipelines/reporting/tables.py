"""The tables of a report beside the main one: gains, paired comparisons, settings; all of it as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.core.escaping import csv_text, markdown_row, markdown_text
from pipelines.evaluation.contract.results import SuiteSettings, describe_setting
from pipelines.evaluation.statistics.intervals import Interval
from pipelines.reporting.contents import Report
from pipelines.reporting.gain import Change, Gain
from pipelines.reporting.paired import Comparison


@dataclass(frozen=True)
class TextTable:
    """Rows of texts under headings; the first column is a name, the others stand right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """A table in Markdown."""
        rule = f"| {' | '.join(['---', *['---:'] * (len(self.headings) - 1)])} |\n"
        return markdown_row(self.headings) + rule + "".join(map(markdown_row, self.rows))


def gain_table(gains: Sequence[Gain]) -> TextTable:
    """Average gain, N, and the raw difference of each figure in it."""
    figures = [change.figure for change in gains[0].changes] if gains else []
    headings = ("run", "average gain %", "N", *(f"{figure.heading} {_unit(figure.unit)}".strip() for figure in figures))
    rows = [
        (gain.run, _signed(gain.value, gain.interval, 1), str(gain.num_figures), *(_change(c) for c in gain.changes))
        for gain in gains
    ]
    return TextTable(headings, tuple(rows))


def comparison_table(comparisons: Sequence[Comparison]) -> TextTable:
    """One row for each figure of each run: difference, flips, McNemar's test."""
    headings = ("run", "figure", "difference", "", "0 → 1", "1 → 0", "items", "McNemar p")
    return TextTable(headings, tuple(_comparison(found) for found in comparisons))


def settings_table(report: Report) -> TextTable:
    """The settings of each suite, with the runs that they hold for."""
    seen: dict[tuple[str, SuiteSettings], list[str]] = {}
    for run in report.runs:
        for suite in run.results.suites:
            seen.setdefault((suite.suite, suite.settings), []).append(run.name)
    # Settings that no suite has say nothing.
    fields = [field for field in SuiteSettings.model_fields if any(getattr(s, field) is not None for _, s in seen)]
    rows: list[tuple[str, ...]] = []
    for (name, settings), names in seen.items():
        values = [
            "-" if getattr(settings, field) is None else describe_setting(getattr(settings, field)) for field in fields
        ]
        rows.append((name, "all" if len(names) == len(report.runs) else ", ".join(names), *values))
    return TextTable(("suite", "runs", *(field.replace("_", " ") for field in fields)), tuple(rows))


def notes(report: Report) -> list[str]:
    """What a reader must know to read the figures, one sentence each."""
    lines = ["Brackets: 95 % intervals over the items, of one training run each; n: number of items."]
    if report.start is not None and report.gains:
        lines.append(
            f"Average gain: 100/N times the sum of (s - s0)/s0, s0 of {report.start.name}, the sign turned where less "
            "is better. Differences are raw: in points for shares."
        )
        left_out = [f"{', '.join(names)} ({reason})" for reason, names in report.left_out.items()]
        lines += [f"Not in the average: {'; '.join(left_out)}."] if left_out else []
    for found in report.unlikenesses:
        lines.append(f"Settings of {found.suite} differ, so its figures stand apart: {'; '.join(found.differences)}.")
    if report.tradeoff is not None:
        lines += [f"Not in the chart: {text}." for text in report.tradeoff.left_out]
        if len(report.tradeoff.points) > 1:
            lines.append(f"Pareto front (by the figures, without their intervals): {', '.join(report.tradeoff.front)}.")
    return lines


def paired_note(report: Report) -> str:
    """How the paired table is to be read."""
    tests = sum(found.flips is not None for found in report.comparisons)
    return (
        "Items that both have, compared in pairs; the interval is of the difference, and better or worse is said where "
        f"it leaves out zero. McNemar's exact test; p values are not corrected for the {tests} tests in this table."
    )


def to_markdown(report: Report) -> str:
    """``table.md``: every table of the report with its notes."""
    parts = [f"# {markdown_text(report.title)}", report.table.to_markdown()]
    if report.start is not None and report.gains:
        parts += [f"## Against {markdown_text(report.start.name)}", gain_table(report.gains).to_markdown()]
    parts.append("\n\n".join(map(markdown_text, notes(report))))
    if report.comparisons:
        parts += ["## Paired comparison", comparison_table(report.comparisons).to_markdown()]
        parts.append(markdown_text(paired_note(report)))
    parts += ["## Settings", settings_table(report).to_markdown()]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """``comparisons.csv``: in full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["run", "suite", "figure", "apart", "difference", "low", "high", "num_items", "gained", "lost", "mcnemar_p"]
    )
    for found in comparisons:
        interval = found.difference.interval if found.difference else None
        ends = [repr(interval.low), repr(interval.high)] if interval else ["", ""]
        count = found.difference.num_items if found.difference else ""
        flips = found.flips
        tested = [flips.gained, flips.lost, repr(flips.p_value)] if flips else ["", "", ""]
        figure = found.figure
        names = map(csv_text, (found.run, figure.suite, figure.name, figure.apart))
        writer.writerow([*names, repr(found.raw), *ends, count, *tested])
    return stream.getvalue()


def _comparison(found: Comparison) -> tuple[str, ...]:
    scale, digits = _scale(found.figure.unit)
    interval = found.difference.interval if found.difference else None
    flips = found.flips
    return (
        found.run,
        f"{found.figure.heading} {_unit(found.figure.unit)}".strip(),
        _signed((found.difference.value if found.difference else found.raw) * scale, _scaled(interval, scale), digits),
        found.verdict if found.difference else "no items",
        str(flips.gained) if flips else "-",
        str(flips.lost) if flips else "-",
        str(found.difference.num_items) if found.difference else "-",
        _p_value(flips.p_value) if flips else "-",
    )


def _change(change: Change) -> str:
    scale, digits = _scale(change.figure.unit)
    raw = change.raw
    return "-" if raw is None else _signed(raw * scale, None, digits) + ("" if change.relative is not None else " *")


def _unit(unit: str) -> str:
    return {"share": "points", "score": ""}.get(unit, unit)


def _scale(unit: str) -> tuple[float, int]:
    return (100.0, 1) if unit == "share" else (1.0, 3)


def _scaled(interval: Interval | None, scale: float) -> Interval | None:
    return None if interval is None else Interval(interval.low * scale, interval.high * scale, interval.method)


def _signed(value: float | None, interval: Interval | None, digits: int) -> str:
    if value is None:
        return "-"
    text = _number(value, digits, "+")
    return text + (f" [{_number(interval.low, digits)}, {_number(interval.high, digits)}]" if interval else "")


def _number(value: float, digits: int, sign: str = "") -> str:
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # the sum makes a zero of -0.0


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
