"""One palette and one style for every plot, and how plots are saved: the same figure gives the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from data_registry.core.visible import visible

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
# Unless a salt is set, the identifiers in an SVG are random. Dollar signs in names begin no formula.
_ALWAYS: Final[Any] = {"svg.hashsalt": "ogpsa", "text.parse_math": False, "text.usetex": False}
_LONGEST_LABEL: Final = 120
_STYLE: Final[Any] = {
    "font.size": 9, "axes.linewidth": 0.8, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK,
    "axes.titlesize": 9.5, "axes.titlelocation": "left", "xtick.color": INK, "ytick.color": INK,
    "legend.frameon": False, "legend.fontsize": 8, "hatch.linewidth": 0.6,
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Apply the common style; everything is drawn within it."""
    with _settings(_STYLE):
        yield


@contextmanager
def _settings(more: Any = MappingProxyType({})) -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context({**_ALWAYS, **more}), warnings.catch_warnings():
        # The font lacks the letters of some scripts. The tables have the names; the chart shows boxes for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def label(text: str, *, longest: int = _LONGEST_LABEL) -> str:
    """A name of a run, suite or parameter as a chart shows it.

    Args:
        text: any text.
        longest: the number of characters after which it is cut, which an ellipsis then shows.

    Returns:
        One line that matplotlib takes as text: a label that begins with an underscore would be left out of legends.
    """
    shown = visible(text)
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    return f" {shown}" if shown.startswith("_") else shown


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches with automatic layout, made without a window or other global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def fix_layout(figure: Figure) -> None:
    """Lay a finished figure out, once: every drawing of it would do so anew, which takes as long as the drawing."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def frame(axes: Axes, *, grid: Literal["both", "x", "y"] | None = "y") -> None:
    """Remove the upper and right borders of the axes and draw a faint grid behind the content."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(axis=grid, color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)


def save(figure: Figure, *paths: Path, dpi: int = 200) -> list[Path]:
    """Write a figure to files; each name's suffix gives the format: ``.png`` (with ``dpi``) or ``.svg``."""
    with _settings():
        for path in paths:
            figure.savefig(path, dpi=dpi, facecolor="white", metadata=_metadata(path.suffix))
    return list(paths)


def to_svg(figure: Figure) -> bytes:
    """A figure as SVG on a transparent background, so that it suits light and dark pages."""
    stream = io.BytesIO()
    with _settings():
        figure.savefig(stream, format="svg", transparent=True, metadata=_metadata(".svg"))
    return stream.getvalue()


def _metadata(suffix: str) -> dict[str, Any]:
    """Metadata that leave out the version of matplotlib and the time, so that equal figures give equal bytes."""
    return {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}[suffix]
