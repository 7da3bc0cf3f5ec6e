"""A line of results: one figure of ours, beside a peer's and beside the least that is possible, over several rounds.

Every benchmark takes ``--lines FILE`` and writes its lines there. They are the same for all benchmarks, so that one
table can show them and one comparison can say what became worse.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from benchmarks.bench.machine import describe
from pipelines.core.environment import git_commit, package_versions

Better = Literal["less", "more"]
Against = Literal["peer", "floor"]


@dataclass(frozen=True)
class Reference:
    """What a figure is held against.

    Attributes:
        name: the peer's name, or how the floor was computed or measured.
        value: in the unit of the line, the median over the rounds.
        version: of the peer; empty for a floor, and for a peer that is part of the benchmark itself.
    """

    name: str
    value: float
    version: str = ""


@dataclass(frozen=True)
class Line:
    """One figure.

    Attributes:
        name: what is measured; with ``figure`` it identifies the line from table to table.
        figure: which figure of it, such as ``time of a step``.
        unit: the unit of ``ours``, of the peer and of the floor.
        better: whether less or more is better.
        ours: our figure, the median over the rounds.
        peer: somebody else's manner or program; None where none was measured.
        floor: the least (or most) that is possible; None where it is not known.
        against: which of the two the ratio is to.
        ratio: ours over that, the median over the rounds of the ratios within a round.
        spread: the quartiles of these ratios.
        rounds: the number of rounds.
    """

    name: str
    figure: str
    unit: str
    better: Better
    ours: float
    peer: Reference | None
    floor: Reference | None
    against: Against
    ratio: float
    spread: tuple[float, float]
    rounds: int

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the line from table to table."""
        return self.name, self.figure


@dataclass(frozen=True)
class Beside:
    """A peer or a floor as it was measured.

    Attributes:
        name: see :class:`Reference`.
        values: one for each round, or one alone where it is calculated.
        version: see :class:`Reference`.
    """

    name: str
    values: Sequence[float]
    version: str = ""


def line(
    name: str,
    figure: str,
    unit: str,
    ours: Sequence[float],
    *,
    peer: Beside | None = None,
    floor: Beside | None = None,
    against: Against | None = None,
    better: Better = "less",
) -> Line:
    """A line from the figures of all rounds.

    Args:
        name: what is measured.
        figure: which figure of it.
        unit: the unit of all figures.
        ours: our figure in each round.
        peer: the peer's in the same rounds.
        floor: the floor in the same rounds, or one value.
        against: which of them the ratio is to; by default the peer, where there is one.
        better: whether less or more is better.

    Raises:
        ValueError: no rounds, neither peer nor floor, or rounds that do not fit or are not numbers.
    """
    against = against or ("peer" if peer is not None else "floor")
    beside = peer if against == "peer" else floor
    if not ours or beside is None:
        raise ValueError(f"'{name}' has {'no rounds' if not ours else f'no {against} to be held against'}")
    others = list(beside.values) * (len(ours) if len(beside.values) == 1 else 1)
    if len(others) != len(ours):
        raise ValueError(f"'{name}' has {len(ours)} rounds, and its {against} has {len(others)}")
    ratios = [mine / other for mine, other in zip(ours, others, strict=True)]
    if not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        raise ValueError(f"'{name}' has ratios that are no positive numbers: {ratios}")
    return Line(
        name, figure, unit, better, statistics.median(ours), _reference(peer), _reference(floor), against,
        statistics.median(ratios), quartiles(ratios), len(ours),
    )  # fmt: skip


def _reference(beside: Beside | None) -> Reference | None:
    return None if beside is None else Reference(beside.name, statistics.median(beside.values), beside.version)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile, by linear interpolation; of one value, itself twice."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option ``--lines``."""
    parser.add_argument("--lines", type=Path, default=None, metavar="FILE", help="write the lines of the table there")


def write(path: Path | None, lines: Sequence[Line]) -> None:
    """Write lines with the machine, the commit, the versions and the date; nothing where ``path`` is None."""
    if path is None:
        return
    made = {
        "machine": describe(),
        "commit": git_commit(),
        "versions": package_versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.write_text(json.dumps([asdict(each) | made for each in lines], indent=1) + "\n", encoding="utf-8")


def read(records: Sequence[dict[str, Any]]) -> list[Line]:
    """Lines from what :func:`write` wrote.

    Raises:
        ValueError: the records are no lines.
    """
    lines = []
    for record in records:
        try:
            values = {name: record[name] for name in Line.__dataclass_fields__}
            for name in ("peer", "floor"):
                values[name] = None if values[name] is None else Reference(**values[name])
            first, third = values["spread"]
            lines.append(Line(**{**values, "spread": (float(first), float(third))}))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a record is no line of results: {error!r}") from error
    return lines
