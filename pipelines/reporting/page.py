"""The page of a report: one HTML file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core.visible import visible
from pipelines import drawing
from pipelines.core.environment import tool_version
from pipelines.inspecting.lineage import Ancestor
from pipelines.reporting import tables
from pipelines.reporting.contents import Report
from pipelines.reporting.table import format_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class ShownSource:
    """Where figures of a run come from: the artifact or file, the command that made it, and its lineage."""

    kind: str
    path: str
    command: str
    inputs: tuple[Ancestor, ...]


@dataclass(frozen=True)
class ShownRun:
    """A run in the section on lineage."""

    name: str
    model: str
    fingerprint: str
    sources: tuple[ShownSource, ...]


@dataclass(frozen=True)
class Picture:
    """A drawing inside the page: what ``<img>`` needs, sizes in CSS pixels."""

    source: str
    alt: str
    width: int
    height: int


def embed(picture: Drawing, alt: str) -> Picture:
    """A drawing as SVG in a data URI."""
    width, height = picture.get_size_inches()
    data = base64.b64encode(drawing.to_svg(picture)).decode("ascii")
    return Picture(f"data:image/svg+xml;base64,{data}", alt, round(width * 110), round(height * 110))


def render(report: Report, lineage: Sequence[ShownRun], *, tradeoff: Picture | None, bars: Picture | None) -> str:
    """The page.

    Args:
        report: the content of the page.
        lineage: the lineage of each run.
        tradeoff: the chart, where there is one.
        bars: the bars, where there are any.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Names of runs, models and paths are anybody's: everything that is put in is escaped.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        finalize=_shown,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        title=report.title,
        version=tool_version(),
        start=report.start.name if report.start else "",
        runs=lineage,
        table=_main_table(report),
        gains=tables.gain_table(report.gains) if report.gains else None,
        notes=tables.notes(report),
        tradeoff=tradeoff,
        bars=bars,
        comparisons=tables.comparison_table(report.comparisons),
        paired_note=tables.paired_note(report),
        settings=tables.settings_table(report),
    )


def _main_table(report: Report) -> tables.TextTable:
    table = report.table
    rows = [(name, *(format_metric(cell) for cell in row)) for name, row in zip(table.runs, table.cells, strict=True)]
    return tables.TextTable(("run", *(_unbroken(column.heading) for column in table.columns)), tuple(rows))


def _shown(value: object) -> object:
    """A value for the page; what the page's own macros made is of another type than texts."""
    return visible(value) if type(value) is str else value


def _unbroken(heading: str) -> str:
    """A heading that may be broken anywhere but before its unit and its arrow."""
    for sign in ("%", "↑", "↓"):
        heading = heading.replace(f" {sign}", f"\N{NO-BREAK SPACE}{sign}")
    return heading
