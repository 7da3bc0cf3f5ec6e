"""The trade-off chart: safety against capability, one point for each run, with intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

Horizontal = Literal["left", "center", "right"]
Vertical = Literal["bottom", "center", "top"]

# Okabe and Ito's colours, which the colour-blind can tell apart; in black and white the markers and labels do it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5A5A5A")
_MARKERS = ("s", "^", "D", "v", "P", "X", "p")
INK, QUIET, _FAINT = "#1a1a1a", "#6f6f6f", "#c4c4c4"
STYLE: Any = {
    "font.size": 9, "axes.linewidth": 0.8, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "svg.hashsalt": "ogpsa",
}  # fmt: skip
# A label this many points from its marker or farther is joined to it by a thin line.
_LEADER_FROM = 40.0


@dataclass(frozen=True)
class _Place:
    """Where a label may stand: offset from its marker in points, and the alignment that goes with it."""

    dx: float
    dy: float
    horizontal: Horizontal
    vertical: Vertical

    @property
    def distance(self) -> float:
        """From the marker, in points."""
        return math.hypot(self.dx, self.dy)


def _places() -> list[_Place]:
    places = []
    for radius in (12.0, 19.0, 30.0, 46.0):
        for degrees in (0, 180, 35, 145, -35, -145, 65, 115, -65, -115, 90, -90):
            dx, dy = radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))
            horizontal: Horizontal = "center" if abs(dx) < 1 else "left" if dx > 0 else "right"
            vertical: Vertical = "center" if abs(dy) < 1 else "bottom" if dy > 0 else "top"
            places.append(_Place(dx, dy, horizontal, vertical))
    return places


@dataclass(frozen=True)
class Estimate:
    """A figure in per cent with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """One run in the chart.

    Attributes:
        label: written beside the marker.
        capability: the horizontal place.
        safety: the vertical place.
        note: a second, quieter line of the label.
        is_start: the model before alignment, to which the others are joined.
    """

    label: str
    capability: Estimate
    safety: Estimate
    note: str = ""
    is_start: bool = False


def draw_tradeoff(points: Sequence[Point], *, capability_label: str, safety_label: str, caption: str = "") -> Figure:
    """Draw safety against capability; better is up and to the right.

    Args:
        points: the runs; at most one is the start.
        capability_label: of the horizontal axis.
        safety_label: of the vertical axis.
        caption: a line below the chart, such as what the bars mean.

    Raises:
        ValueError: there are no points, or several starts.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    starts = [point for point in points if point.is_start]
    if not points or len(starts) > 1:
        raise ValueError(f"a chart needs points and at most one start, not {len(points)} and {len(starts)}")
    with rc_context(STYLE):
        figure = Figure(figsize=(5.6, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _frame(axes, points, capability_label, safety_label)
        if starts:
            _join_to_start(axes, starts[0], points)
        _draw_front(axes, pareto_front(points))
        aligned = [point for point in points if not point.is_start]
        for point in starts:
            _draw_point(axes, point, "o", INK, hollow=True)
        for index, point in enumerate(aligned):
            is_second_round = index // len(_MARKERS) % 2 == 1
            marker, colour = _MARKERS[index % len(_MARKERS)], COLOURS[index % len(COLOURS)]
            _draw_point(axes, point, marker, colour, hollow=is_second_round)
        if caption:
            figure.supxlabel(caption, fontsize=7.5, color=QUIET)
        figure.canvas.draw()  # fixes the layout, in which labels are then placed
        _place_labels(axes, points)
    return figure


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats: none is at least as good both ways and better in one. Left to right."""

    def beats(other: Point, point: Point) -> bool:
        ahead = (other.capability.value - point.capability.value, other.safety.value - point.safety.value)
        return min(ahead) >= 0 and max(ahead) > 0

    front = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(front, key=lambda point: (point.capability.value, -point.safety.value))


def save_chart(figure: Figure, folder: Path, name: str = "chart") -> list[Path]:
    """Write ``NAME.png`` (200 dpi) and ``NAME.svg``; the same figure gives the same bytes."""
    from matplotlib import rc_context

    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with rc_context({"svg.hashsalt": "ogpsa"}):
        figure.savefig(paths[0], dpi=200, facecolor="white", metadata={"Software": None})
        figure.savefig(paths[1], facecolor="white", metadata={"Date": None, "Creator": None})
    return paths


def _frame(axes: Axes, points: Sequence[Point], capability_label: str, safety_label: str) -> None:
    axes.set_xlabel(capability_label + "  →")
    axes.set_ylabel(safety_label + "  →")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    for estimates, limit in (
        ([point.capability for point in points], axes.set_xlim),
        ([point.safety for point in points], axes.set_ylim),
    ):
        low, high = min(e.low for e in estimates), max(e.high for e in estimates)
        margin = max(0.12 * (high - low), 1.5)
        limit(low - 1.4 * margin, high + 1.9 * margin)
    # Shares end at 0 and 100, even where a margin makes room for the bars.
    axes.xaxis.set_major_locator(_ticks())
    axes.yaxis.set_major_locator(_ticks())


def _ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    class Percent(MaxNLocator):
        def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
            return [value for value in np.asarray(super().tick_values(vmin, vmax)) if -1e-9 <= value <= 100 + 1e-9]

    return Percent(nbins=6, steps=[1, 2, 2.5, 5, 10])


def _join_to_start(axes: Axes, start: Point, points: Sequence[Point]) -> None:
    """Thin lines from the start to each run, and the capability that alignment should keep."""
    axes.axvline(start.capability.value, color=_FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for point in points:
        if not point.is_start:
            axes.plot(
                [start.capability.value, point.capability.value],
                [start.safety.value, point.safety.value],
                color=_FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1,
            )  # fmt: skip


def _draw_front(axes: Axes, front: Sequence[Point]) -> None:
    """Steps under which everything is beaten by a point of the front."""
    if len(front) < 2:
        return
    axes.step(
        [point.capability.value for point in front], [point.safety.value for point in front],
        where="pre", color=QUIET, linewidth=1.1, linestyle=(0, (6, 2)), zorder=2, label="Pareto front",
    )  # fmt: skip
    axes.legend(loc="best", frameon=False, fontsize=7.5, labelcolor=QUIET, handlelength=2.6)


def _draw_point(axes: Axes, point: Point, marker: str, colour: str, *, hollow: bool = False) -> None:
    x, y = point.capability, point.safety
    axes.errorbar(
        [x.value], [y.value],
        xerr=[[x.value - x.low], [x.high - x.value]], yerr=[[y.value - y.low], [y.high - y.value]],
        fmt=marker, markersize=7.5, markerfacecolor="white" if hollow else colour, markeredgecolor=colour,
        markeredgewidth=1.2, ecolor=colour, elinewidth=1.1, capsize=2.5, capthick=1.1, zorder=3, clip_on=False,
    )  # fmt: skip


def _place_labels(axes: Axes, points: Sequence[Point]) -> None:
    """Write each label where it covers least of the marks and of the labels before it."""
    renderer: Any = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inside = axes.get_window_extent(renderer)
    marks = _marks(axes, points)
    markers = axes.transData.transform([(point.capability.value, point.safety.value) for point in points])
    legend = axes.get_legend()
    taken: list[Any] = [] if legend is None else [legend.get_window_extent(renderer)]
    for index, point in enumerate(points):

        def judge(place: _Place, index: int = index, point: Point = point) -> tuple[float, bool]:
            trial = _write(axes, point, place, leader=False)
            box = trial.get_window_extent(renderer).padded(4)
            trial.remove()
            covered = ((marks >= box.min) & (marks <= box.max)).all(axis=1).sum()
            overlapping = sum(box.overlaps(other) for other in taken)
            outside = max(0.0, inside.x0 - box.x0, box.x1 - inside.x1, inside.y0 - box.y0, box.y1 - inside.y1)
            # How far each marker is from the label: it must be plain which one is meant.
            gaps = np.hypot(*np.maximum(0.0, np.maximum(box.min - markers, markers - box.max)).T)
            is_doubtful = bool((np.delete(gaps, index) < gaps[index] + 12).any())
            cost = 4.0 * covered + 80.0 * overlapping + 12.0 * outside + 60.0 * is_doubtful + 0.35 * place.distance
            return cost, is_doubtful

        place = min(_places(), key=lambda place: judge(place)[0])
        leader = judge(place)[1] or place.distance >= _LEADER_FROM
        label = _write(axes, point, place, leader=leader)
        taken.append(label.get_window_extent(renderer).padded(4))


def _marks(axes: Axes, points: Sequence[Point]) -> np.ndarray[Any, Any]:
    """Points on the screen that a label should not cover: markers, along the bars, and along the joining lines."""
    spots: list[tuple[float, float]] = []
    start = next((point for point in points if point.is_start), None)
    for point in points:
        x, y = point.capability, point.safety
        spots += [(x.value, y.value)] * 5
        spots += [(value, y.value) for value in np.linspace(x.low, x.high, 31)]
        spots += [(x.value, value) for value in np.linspace(y.low, y.high, 31)]
        if start is not None and start is not point:
            ends = (start.capability.value, start.safety.value), (x.value, y.value)
            spots += [tuple(spot) for spot in np.linspace(*ends, 40)]
    front = pareto_front(points)
    for left, right in itertools.pairwise(front):
        across = np.linspace(left.capability.value, right.capability.value, 40)
        down = np.linspace(left.safety.value, right.safety.value, 40)
        spots += [(value, right.safety.value) for value in across] + [(left.capability.value, value) for value in down]
    return np.asarray(axes.transData.transform(np.array(spots)))


def _write(axes: Axes, point: Point, place: _Place, *, leader: bool) -> Annotation:
    from matplotlib.patheffects import withStroke

    line = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4}
    label = axes.annotate(
        point.label + (f"\n{point.note}" if point.note else ""),
        (point.capability.value, point.safety.value),
        xytext=(place.dx, place.dy),
        textcoords="offset points",
        ha=place.horizontal,
        va=place.vertical,
        multialignment=place.horizontal,
        arrowprops=line if leader else None,
        fontsize=8.5,
        linespacing=1.25,
        zorder=4,
        annotation_clip=False,
    )
    label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    return label
