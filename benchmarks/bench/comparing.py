"""What became worse since another table: by more than a tenth, and by more than the rounds differ from each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.bench.line import Line, read
from benchmarks.bench.machine import difference

WORSE = 1.10
"""Ratios that are worse by this factor count as a regression."""


@dataclass(frozen=True)
class Regression:
    """A line that became worse.

    Attributes:
        benchmark: whose line it is.
        before: the line in the other table.
        now: the line.
        factor: by how much it is worse; 1.2 is a fifth.
    """

    benchmark: str
    before: Line
    now: Line
    factor: float


@dataclass(frozen=True)
class Comparison:
    """One table held against another.

    Attributes:
        said: one sentence: against what it was held, or why it could not be.
        regressions: what became worse.
        unlike: benchmarks and lines of the other table that could not be compared, each with its reason.
    """

    said: str
    regressions: list[Regression]
    unlike: list[str]


def compare(table: Mapping[str, Any], other: Mapping[str, Any] | None) -> Comparison:
    """Hold a table against another.

    Args:
        table: the present table.
        other: the other one; None where there is none.
    """
    if other is None:
        return Comparison("No table has been kept yet, so there is nothing to compare with.", [], [])
    which = f"the table of {other['date'][:10]}, commit {other['commit']}"
    if other.get("parts", 1) > 1:
        which = f"the last table of each benchmark ({other['parts']} tables; the newest is {which})"
    unlike = difference(table["machine"], other["machine"])
    if unlike:
        return Comparison(f"Cannot be compared with {which}: it was measured on another machine ({unlike}).", [], [])
    if table["size"] != other["size"]:
        sizes = f"its size is '{other['size']}', and this one's is '{table['size']}'"
        return Comparison(f"Cannot be compared with {which}: {sizes}.", [], [])
    regressions: list[Regression] = []
    gone: list[str] = []
    older = {entry["name"]: entry for entry in other["benchmarks"]}
    for entry in table["benchmarks"]:
        before = older.get(entry["name"])
        if before is None or not before["lines"] or not entry["lines"]:
            continue
        if before["arguments"] != entry["arguments"]:
            gone.append(f"{entry['name']}: it was run with '{before['arguments']}' then")
            continue
        now = {each.key: each for each in read(entry["lines"])}
        for then in read(before["lines"]):
            if then.key not in now:
                gone.append(f"{entry['name']}: '{then.name}, {then.figure}' is no longer measured")
        regressions += _worse(entry["name"], before, now)
    return Comparison(f"Compared with {which}.", regressions, gone)


def _worse(benchmark: str, before: Mapping[str, Any], now: Mapping[tuple[str, str], Line]) -> Iterator[Regression]:
    for then in read(before["lines"]):
        line = now.get(then.key)
        if line is None or line.against != then.against:
            continue
        if line.better == "less":
            factor, apart = line.ratio / then.ratio, line.spread[0] > then.spread[1]
        else:
            factor, apart = then.ratio / line.ratio, line.spread[1] < then.spread[0]
        if factor > WORSE and apart:
            yield Regression(benchmark, then, line, factor)
