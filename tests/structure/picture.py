"""The picture of the house: folders as boxes in layers, imports as arrows, those that others imply left out."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve
from matplotlib.textpath import TextPath

from tests.structure.code import Module, project_imports, read_modules
from tests.structure.layout import Layout, lay_out, rows_of, without_implied
from tests.structure.table import Room, read_table, room_name

NAME = "architecture"
# Measurements stand outside of the house and look at all of it.
_LEFT_OUT = "benchmarks"
# Inches.
_BOX, _ROW, _GAP, _MARGIN, _SIDE = 0.48, 0.86, 0.22, 0.16, 1.25
_INK, _QUIET, _PAPER = "#1f2430", "#6b7280", "#ffffff"
_FILLS = {"ogpsa_cli": "#fbe3d2", "pipelines": "#dbe8f6", "data_registry": "#d9f0e3"}
_EDGES = {"ogpsa_cli": "#c8602a", "pipelines": "#2f6db0", "data_registry": "#2a8a5c"}
_BANDS = ("#f6f7f9", "#eef0f3")


def box_of(room: str) -> str:
    """The box that a room is drawn in: folders inside ``pipelines/evaluation`` and the like lie in its box."""
    return "/".join(room.split("/")[:2])


def describe() -> dict[str, Any]:
    """What the picture shows: boxes with their layer, folders inside and lines of code, and the arrows."""
    modules, rooms = read_modules(), read_table()
    arrows: dict[str, set[str]] = defaultdict(set)
    boxes: dict[str, dict[str, Any]] = {}
    for room in rooms.values():
        files = [module for module in modules.values() if room_name(module, rooms) == room.name]
        if room.name.startswith(_LEFT_OUT) or all(module.file.endswith("__init__.py") for module in files):
            continue
        box = boxes.setdefault(box_of(room.name), {"layer": room.layer, "inside": [], "lines": 0})
        box["lines"] += sum(len(module.text.splitlines()) for module in files)
        if room.name.count("/") == 2:
            box["inside"].append(room.name.rpartition("/")[2])
        for module in files:
            arrows[box_of(room.name)] |= _boxes_below(module, modules, rooms) - {box_of(room.name)}
    shown = without_implied(arrows)
    return {
        "boxes": {name: {**box, "lines": _rounded(box["lines"])} for name, box in boxes.items()},
        "arrows": sorted([start, end] for start, ends in shown.items() for end in ends),
    }


def _boxes_below(module: Module, modules: dict[str, Module], rooms: dict[str, Room]) -> set[str]:
    names = (room_name(below, rooms) for below, _ in project_imports(module, modules))
    return {box_of(name) for name in names if name is not None}


def _rounded(lines: int) -> int:
    return round(lines, -2) if lines >= 1000 else round(lines, -1)


def read_description(svg: Path) -> dict[str, Any]:
    """What a drawn picture shows, as :func:`describe` said when it was drawn."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", svg.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    description: dict[str, Any] = json.loads(found[1].replace("&quot;", '"'))
    return description


def draw(folder: Path) -> list[Path]:
    """Draw the picture as SVG and PNG; the same code gives the same files."""
    description = describe()
    heights = {room.layer: room.height for room in read_table().values()}
    boxes = description["boxes"]
    arrows: dict[str, set[str]] = defaultdict(set)
    for start, end in description["arrows"]:
        arrows[start].add(end)
    row_of = rows_of(list(boxes), arrows, {name: heights[box["layer"]] for name, box in boxes.items()})
    widths = {name: _width(name, box) for name, box in boxes.items()}
    layout = lay_out(list(boxes), arrows, row_of, widths, _GAP)
    with rc_context({"svg.hashsalt": NAME, "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        figure = _figure(layout, boxes, widths)
        paths = [folder / f"{NAME}.svg", folder / f"{NAME}.png"]
        figure.savefig(paths[0], metadata={"Date": None, "Creator": None, "Description": json.dumps(description)})
        figure.savefig(paths[1], dpi=140, metadata={"Software": None})
    return paths


def _texts(name: str, box: dict[str, Any]) -> list[tuple[str, float, str, str]]:
    """The lines of a box: text, size, weight and colour."""
    package, _, room = name.partition("/")
    rest = [f"{box['lines']:,} lines".replace(",", "\N{THIN SPACE}")]
    inside = [" · ".join(box["inside"])] if box["inside"] else []
    title = room or package
    return [
        (title, 10.5, "bold", _INK),
        *((text, 7.5, "normal", _INK) for text in inside),
        *((text, 7.5, "normal", _QUIET) for text in rest),
    ]


def _width(name: str, box: dict[str, Any]) -> float:
    return max(0.95, *(_text_width(text, size, weight) + 0.32 for text, size, weight, _ in _texts(name, box)))


def _text_width(text: str, size: float, weight: str) -> float:
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family="DejaVu Sans", weight=weight)
    return float(TextPath((0, 0), text, size=size, prop=font).get_extents().width) / 72


def _figure(layout: Layout, boxes: dict[str, Any], widths: dict[str, float]) -> Figure:
    left = min(layout.middle[name] - widths[name] / 2 for name in boxes)
    right = max(layout.middle[name] + widths[name] / 2 for name in boxes)
    left, right = min(left, *layout.middle.values()) - _MARGIN, max(right, *layout.middle.values()) + _MARGIN
    height = len(layout.rows) * _ROW
    figure = Figure(figsize=(right - left + _SIDE, height + 0.5), facecolor=_PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(left - _SIDE, right)
    axes.set_ylim(height, -0.5)
    axes.axis("off")
    _draw_bands(axes, layout, boxes, left, right)
    _draw_arrows(axes, layout, boxes, widths)
    for name, box in boxes.items():
        _draw_box(axes, name, box, layout.middle[name], layout.row_of()[name] * _ROW + _ROW / 2, widths[name])
    _draw_legend(axes, left)
    return figure


def _draw_bands(axes: Any, layout: Layout, boxes: dict[str, Any], left: float, right: float) -> None:
    rows: dict[str, list[int]] = defaultdict(list)
    for name, row in layout.row_of().items():
        if name in boxes:
            rows[boxes[name]["layer"]].append(row)
    for number, (layer, members) in enumerate(rows.items()):
        top, bottom = min(members) * _ROW, (max(members) + 1) * _ROW
        axes.fill_between((left - _SIDE, right), top, bottom, color=_BANDS[number % 2], linewidth=0, zorder=0)
        axes.text(left - _SIDE + 0.14, (top + bottom) / 2, layer, fontsize=9, color=_QUIET, va="center", style="italic")


def _draw_box(axes: Any, name: str, box: dict[str, Any], x: float, y: float, width: float) -> None:
    package = name.partition("/")[0]
    texts = _texts(name, box)
    height = _BOX + 0.14 * (len(texts) - 2)
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=_FILLS[package], edgecolor=_EDGES[package], linewidth=1.0, zorder=4,
        )
    )  # fmt: skip
    place = y - height / 2 + 0.17
    for text, size, weight, colour in texts:
        axes.text(x, place, text, fontsize=size, weight=weight, color=colour, ha="center", va="center", zorder=5)
        place += 0.175 if size > 9 else 0.14


def _draw_arrows(axes: Any, layout: Layout, boxes: dict[str, Any], widths: dict[str, float]) -> None:
    row_of = layout.row_of()
    starts, ends = _ports(layout, widths)
    for (start, end), way in layout.ways.items():
        points = [(starts[start, end], _edge(row_of[start], boxes[start], 1))]
        for bend in way[1:-1]:
            # Straight through the row, curved between rows.
            points += [(layout.middle[bend], row_of[bend] * _ROW + _ROW * share) for share in (0.12, 0.88)]
        points.append((ends[start, end], _edge(row_of[end], boxes[end], -1) - 0.075))
        colour = _EDGES[start.partition("/")[0]]
        axes.add_patch(
            PathPatch(_curve(points), facecolor="none", edgecolor=colour, linewidth=1.1, alpha=0.75, zorder=2)
        )
        x, y = points[-1]
        head = [(x - 0.042, y), (x + 0.042, y), (x, y + 0.075)]
        axes.add_patch(Polygon(head, closed=True, facecolor=colour, linewidth=0, zorder=3))


def _edge(row: int, box: dict[str, Any], side: int) -> float:
    """The lower (side 1) or upper (-1) edge of a box."""
    return row * _ROW + _ROW / 2 + side * (_BOX + 0.14 * bool(box["inside"])) / 2


def _ports(layout: Layout, widths: dict[str, float]) -> tuple[dict[Any, float], dict[Any, float]]:
    """Where arrows leave and reach their boxes: side by side, in the order of where they come from or go to."""
    starts: dict[Any, float] = {}
    ends: dict[Any, float] = {}
    for ports, own, other in ((starts, 0, 1), (ends, -1, -2)):
        by_box: dict[str, list[tuple[float, Any]]] = defaultdict(list)
        for arrow, way in layout.ways.items():
            by_box[way[own]].append((layout.middle[way[other]], arrow))
        for box, found in by_box.items():
            step = min(0.22, (widths[box] - 0.3) / len(found))
            for index, (_, arrow) in enumerate(sorted(found)):
                ports[arrow] = layout.middle[box] + (index - (len(found) - 1) / 2) * step
    return starts, ends


def _curve(points: list[tuple[float, float]]) -> Curve:
    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        half = (y1 - y0) / 2
        vertices += [(x0, y0 + half), (x1, y1 - half), (x1, y1)]
        codes += [Curve.CURVE4] * 3
    return Curve(vertices, codes)


def _draw_legend(axes: Any, left: float) -> None:
    place = left - _SIDE + 0.14
    for package, what in (("ogpsa_cli", "ogpsa_cli"), ("pipelines", "pipelines"), ("data_registry", "data_registry")):
        axes.add_patch(
            FancyBboxPatch(
                (place, -0.33), 0.16, 0.16, boxstyle="round,pad=0,rounding_size=0.03",
                facecolor=_FILLS[package], edgecolor=_EDGES[package], linewidth=1.0,
            )
        )  # fmt: skip
        axes.text(place + 0.24, -0.25, what, fontsize=9, color=_INK, va="center")
        place += 0.45 + _text_width(what, 9, "normal")
    axes.text(place + 0.1, -0.25, "An arrow is an import; what follows from others is left out.",
              fontsize=9, color=_QUIET, va="center")  # fmt: skip
