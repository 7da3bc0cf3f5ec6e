"""The table as a person sees it, in 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.bench.comparing import Comparison
from benchmarks.bench.line import Line, Reference, read


def show(table: Mapping[str, Any], comparison: Comparison | None = None, console: Console | None = None) -> None:
    """Print a table, what failed, and what became worse; of a table that has tests also how these went."""
    console = console or Console()
    worse = {(found.benchmark, found.now.key) for found in comparison.regressions} if comparison else set()
    console.print(_lines(table, worse))
    for text in _below(table, comparison):
        # Sentences stay whole where they are searched for, and terminals wrap them.
        console.print(text, soft_wrap=True)


def _below(table: Mapping[str, Any], comparison: Comparison | None) -> list[Text]:
    parts: list[Text] = []
    if "tests" in table:
        tests = table["tests"]
        numbers = ", ".join(f"{tests[state]} {state}" for state in ("passed", "failed", "skipped"))
        said = f"Tests: {numbers}, {tests['seconds']:.0f} s"
        parts.append(Text(said, style="red" if tests["failed"] or not tests["passed"] else ""))
        parts += [Text(f"FAILED: {name}", style="red") for name in tests["names_of_failed"]]
    for entry in table["benchmarks"]:
        for state in ("failed", "left_out"):
            if entry[state]:
                word = "FAILED" if state == "failed" else "not run"
                parts.append(Text(f"{word}: {entry['name']}: {entry[state]}", style="red" if state == "failed" else ""))
    if comparison is not None:
        parts.append(Text(comparison.said))
        for found in comparison.regressions:
            change = f"{found.before.ratio:.3f} -> {found.now.ratio:.3f}, worse by {100 * (found.factor - 1):.0f} %"
            parts.append(Text(f"WORSE: {found.now.name}, {found.now.figure}: {change}", style="red"))
        parts += [Text(f"not compared: {said}") for said in comparison.unlike]
        if not comparison.regressions and comparison.said.startswith("Compared"):
            parts.append(Text("Nothing is worse by more than 10 % and beyond the spread."))
    return parts


def _lines(table: Mapping[str, Any], worse: set[tuple[str, tuple[str, str]]]) -> Table:
    machine = table["machine"]
    gpus = f", {', '.join(machine['gpus'])} (driver {machine['driver']})" if machine["gpus"] else ", no GPU"
    shown = Table(
        title=f"{table['date'][:16].replace('T', ' ')} UTC, commit {table['commit']}, {table['size']}\n"
        f"{machine['processor']}, {machine['cpus']} cores, {machine['memory_gib']} GiB{gpus}",
        caption="ratio: ours to the peer or the floor, median and quartiles of n rounds;\n"
        "less is better, or more where there is an arrow",
        width=80,
        pad_edge=False,
    )
    for name, width in (("benchmark", 24), ("ours", 9), ("peer", 12), ("floor", 13), ("ratio", 14)):
        shown.add_column(name, width=width, overflow="fold")
    for entry in table["benchmarks"]:
        for each in read(entry["lines"]):
            style = "red" if (entry["name"], each.key) in worse else ""
            cells = (
                f"{each.name}: {each.figure}",
                quantity(each.ours, each.unit),
                _beside(each.peer, each.unit),
                _beside(each.floor, each.unit),
                _ratio(each),
            )
            shown.add_row(*(Text(cell) for cell in cells), style=style)
        if entry["lines"]:
            shown.add_section()
    return shown


def _ratio(line: Line) -> str:
    first, third = line.spread
    ratio = f"{line.ratio:{'.3f' if line.ratio < 10 else '.3g'}} {line.against}{' ↑' if line.better == 'more' else ''}"
    return ratio if line.rounds == 1 else f"{ratio}\n{first:.2f}-{third:.2f} n={line.rounds}"


def _beside(reference: Reference | None, unit: str) -> str:
    if reference is None:
        return "-"
    return f"{quantity(reference.value, unit)}\n{reference.name} {reference.version}".rstrip()


def quantity(value: float, unit: str) -> str:
    """A number with three figures, and its unit."""
    size = abs(value)
    number = f"{value:,.0f}" if size >= 100 else f"{value:.3g}" if size >= 0.001 or value == 0 else f"{value:.1e}"
    return f"{number} {unit}"
