"""Results as a table of runs by figures: for the console, as Markdown, CSV and plain text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_registry.core.visible import visible
from pipelines.core.escaping import csv_text, markdown_row
from pipelines.evaluation.contract.results import Metric, Results, refuse_unlike

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text


@dataclass(frozen=True)
class Column:
    """One figure of the table: where it comes from and how it is shown.

    Attributes:
        suite: the suite that the figure belongs to.
        metric: its name in the suite.
        title: the title that readers see.
        unit: the unit of its values.
        higher_is_better: the direction in which it improves; None: it has none.
        num_items: the number of items behind each value, to be shown; None: not shown, or not the same for all.
        apart: the settings that tell it from another column of the same figure.
    """

    suite: str
    metric: str
    title: str
    unit: str
    higher_is_better: bool | None
    num_items: int | None = None
    apart: str = ""

    @property
    def heading(self) -> str:
        """Title, unit, the direction that is better, and the number of items."""
        unit = {"share": " %", "score": ""}.get(self.unit, f" {self.unit}")
        apart = f" ({self.apart})" if self.apart else ""
        count = f", n={self.num_items}" if self.num_items is not None else ""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.title}{apart}{unit}{arrow}{count}"

    @property
    def key(self) -> str:
        """``SUITE:FIGURE``, and what sets it apart."""
        return f"{self.suite}:{self.metric}" + (f" ({self.apart})" if self.apart else "")


@dataclass(frozen=True)
class ResultsTable:
    """Runs by figures.

    Attributes:
        columns: the figures.
        runs: names of the rows.
        cells: ``cells[row][column]``; None where a run has not got the figure.
    """

    columns: tuple[Column, ...]
    runs: tuple[str, ...]
    cells: tuple[tuple[Metric | None, ...], ...]

    def to_rich(self) -> RichTable:
        """A table for the console."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        table = RichTable(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("run", no_wrap=True)
        for column in self.columns:
            table.add_column(_shown(column.heading), justify="right", no_wrap=True)
        for row in self._texts():
            table.add_row(*map(_shown, row))
        return table

    def transposed_to_rich(self) -> RichTable:
        """The same with a row for each figure, for many figures of few runs on a console."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        table = RichTable(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        for run in self.runs:
            table.add_column(_shown(run), justify="right")
        texts = self._texts()
        for index, column in enumerate(self.columns, start=1):
            table.add_row(_shown(column.heading), *(_shown(row[index]) for row in texts))
        return table

    def to_plain(self) -> str:
        """Aligned text for logs and terminals without colour."""
        rows = [["run", *(column.heading for column in self.columns)], *self._texts()]
        rows = [[visible(text) for text in row] for row in rows]
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        lines = ["  ".join(_align(row, widths)).rstrip() for row in rows]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([lines[0], rule, *lines[1:]]) + "\n"

    def to_markdown(self) -> str:
        """A table in Markdown."""
        head = markdown_row(["run", *(column.heading for column in self.columns)])
        rule = f"| {' | '.join(['---', *['---:'] * len(self.columns)])} |\n"
        return head + rule + "".join(map(markdown_row, self._texts()))

    def to_csv(self) -> str:
        """Figures in full precision, with intervals and numbers of items in columns of their own."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        parts = ("value", "low", "high", "num_items")
        writer.writerow(["run", *(csv_text(f"{c.key}:{part}") for c in self.columns for part in parts)])
        for run, row in zip(self.runs, self.cells, strict=True):
            writer.writerow([csv_text(run), *(_csv_cell(cell, part) for cell in row for part in parts)])
        return stream.getvalue()

    def _texts(self) -> list[list[str]]:
        return [[run, *(format_metric(cell) for cell in row)] for run, row in zip(self.runs, self.cells, strict=True)]


def tabulate(results: Sequence[Results], *, details: bool = False) -> ResultsTable:
    """Put results side by side.

    Args:
        results: at least one; rows in this order.
        details: all figures, not only the headlines.

    Raises:
        ValueError: there are no results.
        InputError: two of them have unlike settings.
    """
    if not results:
        raise ValueError("no results to put in a table")
    refuse_unlike(results)
    found: dict[tuple[str, str], Metric] = {}
    for result in results:
        for suite in result.suites:
            for metric in suite.metrics:
                if metric.headline or details:
                    found.setdefault((suite.suite, metric.name), metric)
    names = [metric for _, metric in found]
    columns = tuple(
        Column(
            suite,
            name,
            column_title(suite, name, is_ambiguous=names.count(name) > 1),
            metric.unit,
            metric.higher_is_better,
        )
        for (suite, name), metric in found.items()
    )
    cells = tuple(tuple(result.metric(c.suite, c.metric) for c in columns) for result in results)
    return ResultsTable(columns, tuple(result.run for result in results), cells)


def format_metric(metric: Metric | None) -> str:
    """A figure with its interval: shares in percent with one decimal, losses with three."""
    if metric is None:
        return "-"
    scale, digits = (100, 1) if metric.unit == "share" else (1, 3)
    text = f"{metric.value * scale:.{digits}f}"
    if metric.low is None or metric.high is None:
        return text
    return f"{text} [{metric.low * scale:.{digits}f}, {metric.high * scale:.{digits}f}]"


def column_title(suite: str, name: str, *, is_ambiguous: bool) -> str:
    """A figure's name for headings, with its data set's where the suite takes any or another figure has the name."""
    # Figures of data sets have one name for all; the data set's tells them apart.
    prefix = suite.rpartition("/")[2] + " " if is_ambiguous or "/" in suite else ""
    return (prefix + name).replace("_", "-")


def _align(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]


def _shown(text: str) -> Text:
    """A cell for the console: a string would be read as markup."""
    from rich.text import Text

    return Text(visible(text))


def _csv_cell(metric: Metric | None, part: str) -> str:
    value = None if metric is None else getattr(metric, part)
    return "" if value is None else repr(value)
