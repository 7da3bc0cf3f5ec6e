"""One palette and one style for every plot, and how plots are saved: the same figure gives the same bytes."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, safe for the colour-blind; in black and white, markers, lines and hatches tell them apart.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5A5A5A")
MARKERS: Final = ("s", "^", "D", "v", "P", "X", "p")
LINES: Final[tuple[Any, ...]] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
HATCHES: Final = ("////", "....", "xxxx", "----", "oo", "++", "\\\\\\\\", "**", "||||")
INK: Final = "#1a1a1a"
QUIET: Final = "#6f6f6f"
FAINT: Final = "#c4c4c4"
_GRID: Final = "#ececec"
# Unless a salt is set, the identifiers in an SVG are random.
_SVG: Final[Any] = {"svg.hashsalt": "ogpsa"}
_STYLE: Final[Any] = {
    "font.size": 9, "axes.linewidth": 0.8, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK,
    "axes.titlesize": 9.5, "axes.titlelocation": "left", "xtick.color": INK, "ytick.color": INK,
    "legend.frameon": False, "legend.fontsize": 8, "hatch.linewidth": 0.6,
}  # fmt: skip


def style() -> AbstractContextManager[None]:
    """A context manager that applies the common style; everything is drawn within it."""
    from matplotlib import rc_context

    return rc_context({**_STYLE, **_SVG})


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches with automatic layout, made without a window or other global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def frame(axes: Axes, *, grid: Literal["both", "x", "y"] | None = "y") -> None:
    """Remove the upper and right borders of the axes and draw a faint grid behind the content."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(axis=grid, color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)


def save(figure: Figure, *paths: Path, dpi: int = 200) -> list[Path]:
    """Write a figure to files; each name's suffix gives the format: ``.png`` (with ``dpi``) or ``.svg``."""
    from matplotlib import rc_context

    with rc_context(_SVG):
        for path in paths:
            figure.savefig(path, dpi=dpi, facecolor="white", metadata=_metadata(path.suffix))
    return list(paths)


def to_svg(figure: Figure) -> bytes:
    """A figure as SVG on a transparent background, so that it suits light and dark pages."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    with rc_context(_SVG):
        figure.savefig(stream, format="svg", transparent=True, metadata=_metadata(".svg"))
    return stream.getvalue()


def _metadata(suffix: str) -> dict[str, Any]:
    """Metadata that leave out the version of matplotlib and the time, so that equal figures give equal bytes."""
    return {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}[suffix]
