"""``ogpsa report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipelines.configs.report import ReportConfig
    from pipelines.reporting.contents import Report
    from pipelines.reporting.table import ResultsTable
    from pipelines.reporting.tables import TextTable


def execute(config: ReportConfig) -> int:
    """Write the report and print its tables."""
    from ogpsa_cli import console
    from pipelines.commands import report
    from pipelines.reporting import writing

    result = report.run(config)
    show(result.report)
    page = str(result.path / writing.PAGE_FILE)
    console.finished("report", result, console.command_text(["xdg-open", page]), details=[f"page: {page}"])
    return 0


def show(report: Report) -> None:
    """Print the table, the gains and the notes of a report."""
    from rich.text import Text

    from ogpsa_cli import console
    from pipelines.reporting import tables

    console.show(main_table(report.table) if console.is_terminal() else Text(report.table.to_plain()))
    if report.start is not None and any(gain.num_figures for gain in report.gains):
        console.show(
            console.text(f"Against {report.start.name}", "bold yellow"), text_table(tables.gain_table(report.gains))
        )
    console.show("", *(console.text(note, "dim") for note in tables.notes(report)), "")


def main_table(table: ResultsTable) -> RenderableType:
    """The main table with one row per run, or with one column per run where the former is too wide for the terminal.

    Where neither fits, the terminal shows the rows of the former as blocks.
    """
    from ogpsa_cli import console

    by_run, by_figure = table.to_rich(), table.transposed_to_rich()
    return by_figure if console.fits(by_figure) and not console.fits(by_run) else by_run


def text_table(table: TextTable) -> RenderableType:
    """A table for the console."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from ogpsa_cli import console

    shown = Table(box=SIMPLE_HEAD if console.is_terminal() else None, pad_edge=False)
    for index, heading in enumerate(table.headings):
        shown.add_column(console.text(heading), justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*map(console.text, row))
    return shown
