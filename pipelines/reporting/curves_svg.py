"""Curves as small inline SVG: a report on hundreds of runs has thousands of them.

matplotlib takes a tenth of a second and some 30 kB for each panel. These are a few hundred bytes for each line, take
the page's own colours, light or dark, and their words are words: they can be found and read aloud.
"""

from __future__ import annotations

import math
from typing import Final

from markupsafe import Markup, escape

from data_registry.core.visible import visible
from pipelines.reporting.curves import Panel

_WIDTH, _HEIGHT = 340.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 8.0, 24.0
_TICKS: Final = 4


def draw_panel(panel: Panel) -> Markup:
    """A panel as ``<svg>``; names in it are escaped."""
    steps = [step for line in panel.lines for step, _ in line.points]
    values = [value for line in panel.lines for _, value in line.points]
    left, right = min(steps), max(steps)
    lowest, highest = min(values), max(values)
    # What is zero but for rounding needs no scale below it.
    ticks = ticks_of(0.0 if -0.01 * highest < lowest < 0 else lowest, highest)
    low, high = min(ticks[0], lowest), max(ticks[-1], highest)
    # Halves, so that the difference of two great numbers stays a number.
    width, height = (right / 2 - left / 2) or 0.5, (high / 2 - low / 2) or 0.5

    def x(step: float) -> float:
        return _LEFT + (step / 2 - left / 2) / width * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value / 2 - low / 2) / height * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<line class="grid" x1="{_LEFT:.0f}" x2="{_WIDTH - _RIGHT:.0f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{_LEFT - 5:.0f}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{_number(tick, ticks)}</text>'
        for tick in ticks
        if low <= tick <= high
    ]
    inner = [tick for tick in ticks_of(left, right) if left <= tick <= right]
    parts += [
        f'<text x="{x(tick):.1f}" y="{_HEIGHT - 7:.0f}" text-anchor="middle">{_number(tick, inner)}</text>'
        for tick in inner
    ]
    for line in panel.lines:
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line.points)
        parts.append(f'<polyline class="curve c{line.style}" points="{points}"/>')
    label = escape(visible(f"{panel.key} over steps. {describe(panel)}"))
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def describe(panel: Panel) -> str:
    """A panel in words: where each run began and ended."""
    return "; ".join(f"{line.label}: from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}" for line in panel.lines)


def ticks_of(low: float, high: float) -> list[float]:
    """Round numbers from below ``low`` to above ``high``, some four of them.

    Args:
        low: the lowest value, finite.
        high: the highest value, finite and no less.
    """
    if high / 2 - low / 2 <= abs(high) * 1e-9:
        room = abs(high) * 0.05 or 1.0
        low, high = low - room, high + room
    rough = (high / 2 - low / 2) / _TICKS * 2
    power = 10.0 ** max(-300, math.floor(math.log10(rough)))
    step = next((size * power for size in (1, 2, 2.5, 5, 10) if size * power >= rough), 10 * power)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [place * step for place in range(first, last + 1)]


def _number(value: float, ticks: list[float]) -> str:
    """A tick as short as tells it from its neighbours."""
    largest = max(map(abs, ticks))
    if largest and not 1e-3 <= largest < 1e5:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e") if value else "0"
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    # 0.25 needs a digit more than 0.2 does.
    digits = next((digits for digits in range(6) if math.isclose(round(step, digits), step, rel_tol=1e-6)), 6)
    return f"{value + 0.0:.{digits}f}"
