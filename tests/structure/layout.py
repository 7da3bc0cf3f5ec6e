"""Where the boxes of a picture in layers go: rows, the order within a row, and places, so that few arrows cross.

The method of Sugiyama, Tagawa and Toda (IEEE Transactions on Systems, Man, and Cybernetics 11, 1981): arrows over
several rows get a bend in each row between, rows are ordered by the mean place of their neighbours, and are then set so
that arrows are as straight as the widths of boxes let them be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Arrow = tuple[str, str]
_SWEEPS, _PULLS = 60, 1500
_STRAIGHT, _INWARDS = 40.0, 0.6
_BEND_WIDTH = 0.10


@dataclass
class Layout:
    """Rows from the top; the place of the middle of every box and bend; and the way of every arrow through them."""

    rows: list[list[str]]
    middle: dict[str, float] = field(default_factory=dict)
    ways: dict[Arrow, list[str]] = field(default_factory=dict)

    def row_of(self) -> dict[str, int]:
        """The row of every box and bend."""
        return {node: number for number, row in enumerate(self.rows) for node in row}


def without_implied(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows of a graph without circles that no chain of others replaces."""
    reached: dict[str, set[str]] = {}

    def reach(node: str) -> set[str]:
        if node not in reached:
            reached[node] = set().union(*({below} | reach(below) for below in arrows.get(node, ())))
        return reached[node]

    return {
        node: {below for below in others if not any(below in reach(other) for other in others if other != below)}
        for node, others in arrows.items()
    }


def rows_of(nodes: Sequence[str], arrows: Mapping[str, set[str]], band: Mapping[str, int]) -> dict[str, int]:
    """The row of every node, from the top: band below band, and in a band what is imported below its importers."""
    depth: dict[str, int] = {}

    def deepest(node: str) -> int:
        if node not in depth:
            inside = [above for above in nodes if node in arrows.get(above, ()) and band[above] == band[node]]
            depth[node] = 1 + max((deepest(above) for above in inside), default=-1)
        return depth[node]

    keys = sorted({(band[node], deepest(node)) for node in nodes})
    return {node: keys.index((band[node], deepest(node))) for node in nodes}


def lay_out(
    nodes: Sequence[str],
    arrows: Mapping[str, set[str]],
    row_of: Mapping[str, int],
    widths: Mapping[str, float],
    gap: float,
) -> Layout:
    """Order rows and place boxes.

    Args:
        nodes: all boxes; their order decides where nothing else does.
        arrows: each from a higher to a lower row.
        row_of: of every box.
        widths: of every box.
        gap: least distance between neighbours.
    """
    layout = Layout([[] for _ in range(1 + max(row_of.values()))])
    for node in nodes:
        layout.rows[row_of[node]].append(node)
    widths = dict(widths)
    for start in nodes:
        for end in sorted(arrows.get(start, ())):
            bends = [f"{start}>{end}@{row}" for row in range(row_of[start] + 1, row_of[end])]
            for row, bend in enumerate(bends, start=row_of[start] + 1):
                layout.rows[row].append(bend)
                widths[bend] = _BEND_WIDTH
            layout.ways[start, end] = [start, *bends, end]
    links = [link for way in layout.ways.values() for link in itertools.pairwise(way)]
    _order(layout, links)
    _place(layout, links, widths, gap)
    for _ in range(_SWEEPS):
        _straighten(layout, widths, gap)
    return layout


def _neighbours(links: Sequence[Arrow]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for high, low in links:
        above.setdefault(low, []).append(high)
        below.setdefault(high, []).append(low)
    return above, below


def _crossings(rows: Sequence[Sequence[str]], links: Sequence[Arrow]) -> int:
    place = {node: (number, index) for number, row in enumerate(rows) for index, node in enumerate(row)}
    between: dict[int, list[tuple[int, int]]] = {}
    for high, low in links:
        between.setdefault(place[high][0], []).append((place[high][1], place[low][1]))
    return sum(
        (first[0] - second[0]) * (first[1] - second[1]) < 0
        for pairs in between.values()
        for number, first in enumerate(pairs)
        for second in pairs[:number]
    )


def _order(layout: Layout, links: Sequence[Arrow]) -> None:
    """Sort rows by the mean place of their neighbours, down and up, swap neighbours, and keep the best found."""
    above, below = _neighbours(links)
    best, fewest = [list(row) for row in layout.rows], _crossings(layout.rows, links)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        near, indices = (above if down else below), range(len(layout.rows))
        place: dict[str, float] = {}
        for number in indices if down else reversed(indices):
            row = layout.rows[number]
            own = {node: index / max(1, len(row) - 1) for index, node in enumerate(row)}
            means = {
                node: sum(place[other] for other in near[node]) / len(near[node]) if near.get(node) else own[node]
                for node in row
            }
            row.sort(key=lambda node, means=means: means[node])  # type: ignore[misc]
            place |= {node: index / max(1, len(row) - 1) for index, node in enumerate(row)}
        _swap(layout.rows, links)
        if (crossings := _crossings(layout.rows, links)) < fewest:
            best, fewest = [list(row) for row in layout.rows], crossings
    layout.rows = best


def _swap(rows: list[list[str]], links: Sequence[Arrow]) -> None:
    """Exchange neighbours as long as fewer arrows cross."""
    improved = True
    while improved:
        improved = False
        for number, row in enumerate(rows):
            local = rows[max(0, number - 1) : number + 2]
            members = {node for near in local for node in near}
            concerned = [link for link in links if link[0] in members and link[1] in members]
            for index in range(len(row) - 1):
                before = _crossings(local, concerned)
                row[index], row[index + 1] = row[index + 1], row[index]
                if _crossings(local, concerned) < before:
                    improved = True
                else:
                    row[index], row[index + 1] = row[index + 1], row[index]


def _place(layout: Layout, links: Sequence[Arrow], widths: Mapping[str, float], gap: float) -> None:
    """Move every row to the mean place of its neighbours, again and again, as far as its boxes leave room."""
    above, below = _neighbours(links)
    for row in layout.rows:
        start = -sum(widths[node] + gap for node in row) / 2
        for node in row:
            layout.middle[node] = start + (widths[node] + gap) / 2
            start += widths[node] + gap
    for sweep in range(_PULLS):
        for row in layout.rows if sweep % 2 == 0 else reversed(layout.rows):
            wanted, weights = [], []
            for node in row:
                near = [*above.get(node, ()), *below.get(node, ())]
                # Bends pull at each other, so that long arrows run straight.
                pulls = [(layout.middle[other], _STRAIGHT if "@" in node and "@" in other else 1.0) for other in near]
                # Boxes are drawn a little towards the middle, so that the picture stays narrow.
                pulls += [] if "@" in node else [(0.0, _INWARDS)]
                total = sum(weight for _, weight in pulls)
                wanted.append(sum(p * w for p, w in pulls) / total)
                weights.append(total)
            for node, place in zip(row, _apart(row, wanted, weights, widths, gap), strict=True):
                layout.middle[node] = place


def _straighten(layout: Layout, widths: Mapping[str, float], gap: float) -> None:
    """Let every arrow run straight down through as many rows as its neighbours leave room for."""
    room = {node: _room(layout, row, index, widths, gap) for row in layout.rows for index, node in enumerate(row)}
    rows = {node: row for row in layout.rows for node in row}
    for way in layout.ways.values():
        run: list[str] = []
        low, high = -math.inf, math.inf
        for bend in [*way[1:-1], None]:
            if bend is not None:
                left, right = room[bend]
                if max(low, left) <= min(high, right):
                    low, high = max(low, left), min(high, right)
                    run.append(bend)
                    continue
            if run:
                mean = sum(layout.middle[node] for node in run) / len(run)
                layout.middle |= dict.fromkeys(run, min(max(mean, low), high))
                for node in run:
                    row = rows[node]
                    room |= {other: _room(layout, row, index, widths, gap) for index, other in enumerate(row)}
            if bend is not None:
                (low, high), run = room[bend], [bend]


def _room(
    layout: Layout, row: Sequence[str], index: int, widths: Mapping[str, float], gap: float
) -> tuple[float, float]:
    """Between which places the middle of a row's member may lie while its neighbours stay where they are."""
    node, low, high = row[index], -math.inf, math.inf
    if index > 0:
        low = layout.middle[row[index - 1]] + _distance(row[index - 1], node, widths, gap)
    if index + 1 < len(row):
        high = layout.middle[row[index + 1]] - _distance(node, row[index + 1], widths, gap)
    return low, max(low, high)


def _distance(left: str, right: str, widths: Mapping[str, float], gap: float) -> float:
    # Arrows beside each other may run closer than boxes.
    return (widths[left] + widths[right]) / 2 + (gap / 2 if "@" in left and "@" in right else gap)


def _apart(
    row: Sequence[str], wanted: Sequence[float], weights: Sequence[float], widths: Mapping[str, float], gap: float
) -> list[float]:
    """The places nearest to the wanted ones at which boxes keep their order and distance (isotonic regression)."""
    offsets = [0.0]
    for left, right in itertools.pairwise(row):
        offsets.append(offsets[-1] + _distance(left, right, widths, gap))
    blocks: list[list[float]] = []  # mean, weight, members
    for place, weight, offset in zip(wanted, weights, offsets, strict=True):
        blocks.append([place - offset, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, mass, count = blocks.pop()
            before = blocks[-1]
            before[0] = (before[0] * before[1] + mean * mass) / (before[1] + mass)
            before[1] += mass
            before[2] += count
    flat = [mean for mean, _, count in blocks for _ in range(int(count))]
    return [mean + offset for mean, offset in zip(flat, offsets, strict=True)]
