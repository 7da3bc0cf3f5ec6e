"""The page of a report: one HTML file that needs nothing else, neither a network nor anybody's scripts but its own."""

from __future__ import annotations

import base64
import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_registry.core.redaction import hide_arguments
from data_registry.core.visible import visible
from pipelines import drawing
from pipelines.core.environment import tool_version
from pipelines.inspecting.lineage import Ancestor
from pipelines.reporting import legend, tables
from pipelines.reporting.background import Background
from pipelines.reporting.contents import Report
from pipelines.reporting.curves_svg import draw_panel
from pipelines.reporting.judged_tables import judged_table, judges_table
from pipelines.reporting.places import ELSEWHERE, Places
from pipelines.reporting.table import format_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_FOLDER = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "page.html.j2", "page.css", "page.js"
_PLACES_NOTE = (
    "What each run was made from. Paths are relative to the folder that holds the results and this report; "
    f"{ELSEWHERE} stands for folders elsewhere."
)


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


def render(report: Report, background: Background, *, tradeoff: Picture | None, bars: Picture | None) -> str:
    """The page.

    Args:
        report: the content of the page.
        background: what stands behind the results: answers, lineage, training runs.
        tradeoff: the chart, where there is one.
        bars: the bars, where there are any.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    # Names of runs, models and paths are anybody's: everything that is put in is escaped.
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_shown
    )
    values: dict[str, Any] = {
        "title": report.title,
        "version": tool_version(),
        "start": report.start.name if report.start else "",
        "runs": [_shown_run(report, number, background) for number in range(len(report.runs))],
        "table": _main_table(report),
        "gains": tables.gain_table(report.gains) if report.gains else None,
        "notes": tables.notes(report),
        "tradeoff": tradeoff,
        "bars": bars,
        "comparisons": tables.comparison_table(report.comparisons),
        "paired_note": tables.paired_note(report),
        "settings": _relative(tables.settings_table(report), background.places),
        "judged": judged_table(report.runs),
        "judges": judges_table(report.runs),
        "has_answers": background.answers is not None,
        "has_samples": bool(background.samples),
        "has_books": background.has_books,
        "answer_notes": background.answer_notes,
        "curves": [
            {"labels": group.labels, "panels": [(legend.curve_title(p.key), draw_panel(p)) for p in group.panels]}
            for group in background.curves
        ],
        "curve_notes": background.curve_notes,
        "differences": background.differences,
        "places_note": _PLACES_NOTE,
        "books": Markup(background.books),
        "style": Markup(_asset(STYLE)),
        "script": Markup(_asset(SCRIPT)),
        "script_hash": _script_hash() if background.has_books else "",
    }
    values["contents"] = _contents(values)
    values["legend"] = _legend(report, background, values)
    return environment.get_template(TEMPLATE).render(values)


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _script_hash() -> str:
    """What the page's security policy names its script by: no other one runs."""
    return base64.b64encode(hashlib.sha256(_asset(SCRIPT).encode()).digest()).decode("ascii")


def _contents(values: dict[str, Any]) -> list[tuple[str, str]]:
    """The sections that the page has, for its list of contents."""
    sections = [
        ("figures", "Figures", True),
        ("gain", "Gain", values["gains"]),
        ("tradeoff", "Safety against capability", values["tradeoff"]),
        ("bars", "Figure by figure", values["bars"]),
        ("paired", "Item by item", values["comparisons"].rows),
        ("judged", "Judged answers", values["judged"].rows),
        ("answers", "Answers", True),
        ("samples", "Samples from training", values["has_samples"]),
        ("curves", "Training curves", True),
        ("differences", "What differs", True),
        ("settings", "Settings", True),
        ("lineage", "Lineage", True),
        ("legend", "Legend", True),
    ]
    return [(place, text) for place, text, is_there in sections if is_there]


def _legend(report: Report, background: Background, values: dict[str, Any]) -> list[tuple[str, str]]:
    said: list[str] = list(values["notes"])
    for table in (values["table"], values["gains"], values["comparisons"], values["judged"], values["judges"]):
        if table is not None and table.rows:
            said += [*table.headings, *(cell for row in table.rows for cell in row[1:])]
    keys = (panel.key for group in background.curves for panel in group.panels)
    return [
        *legend.figure_words(report.figures),
        *legend.term_words("\n".join(said)),
        *legend.curve_words(keys),
    ]


def _shown_run(report: Report, number: int, background: Background) -> dict[str, Any]:
    """A run in the section on lineage."""
    run, places = report.runs[number], background.places
    return {
        "name": run.name,
        "model": places.path(run.results.model),
        "fingerprint": run.results.model_fingerprint,
        "sources": [
            {
                "kind": source.kind,
                "path": places.path(source.path),
                "command": shlex.join(places.words(hide_arguments(source.command))),
                "inputs": [_shown_ancestor(ancestor, places) for ancestor in source.inputs],
            }
            for source in background.sources[number]
        ],
    }


def _shown_ancestor(ancestor: Ancestor, places: Places) -> dict[str, Any]:
    return {
        "role": ancestor.role,
        "kind": ancestor.kind,
        "path": places.path(ancestor.path),
        "state": ancestor.state,
        "note": places.text(ancestor.note),
        "inputs": [_shown_ancestor(below, places) for below in ancestor.inputs],
    }


def _relative(table: tables.TextTable, places: Places) -> tables.TextTable:
    return tables.TextTable(table.headings, tuple(tuple(map(places.text, row)) for row in table.rows))


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
