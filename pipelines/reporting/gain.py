"""The average performance gain against a starting model, with the raw differences that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.contract.results import Metric
from pipelines.evaluation.statistics.intervals import Interval, relative_gain_interval
from pipelines.evaluation.statistics.resampling import Array
from pipelines.reporting.figures import Figure
from pipelines.reporting.paired import stored_pairs
from pipelines.reporting.runs import Run


@dataclass(frozen=True)
class Change:
    """How one figure of a run stands against the starting model.

    Attributes:
        figure: the figure that is compared.
        start: the starting model's value; None where it was not measured.
        value: the run's value; None where it was not measured.
        relative: ``(s - s0) / s0`` with the sign turned where less is better; None where it does not exist.
        reason: why there is no relative change.
    """

    figure: Figure
    start: Metric | None
    value: Metric | None
    relative: float | None
    reason: str = ""

    @property
    def raw(self) -> float | None:
        """``s - s0`` in the figure's unit, with its own sign."""
        return None if self.start is None or self.value is None else self.value.value - self.start.value


@dataclass(frozen=True)
class Gain:
    """The average performance gain of one run.

    Attributes:
        run: its name.
        value: ``100/N`` times the sum of the relative changes, in per cent; None where no figure has one.
        interval: the 95 % interval of ``value`` in per cent, from pairs of items; None where the items of a figure were
            not stored.
        changes: one for each figure that was asked for.
    """

    run: str
    value: float | None
    interval: Interval | None
    changes: tuple[Change, ...]

    @property
    def num_figures(self) -> int:
        """N: figures in the average."""
        return sum(change.relative is not None for change in self.changes)


def average_gains(
    runs: Sequence[Run], start: Run, figures: Sequence[Figure], *, resamples: int, seed: int
) -> list[Gain]:
    """The gain of every run but the starting model, each over the figures that both have.

    Args:
        runs: the runs, in the order of the figures' cells.
        start: the starting model, one of them.
        figures: the figures to average over.
        resamples: the number of resamples that the bootstrap draws.
        seed: the seed of the bootstrap.
    """
    base = next(index for index, run in enumerate(runs) if run is start)
    return [
        _gain(run, start, [_change(figure, figure.cells[base], figure.cells[index]) for figure in figures],
              resamples=resamples, seed=seed)
        for index, run in enumerate(runs)
        if run is not start
    ]  # fmt: skip


def relative_change(value: float, start: float, *, higher_is_better: bool) -> float | None:
    """``(s - s0) / s0``, positive where the run is better; None where s0 is 0 or less and no share of it exists."""
    if start <= 0.0:
        return None
    change = (value - start) / start
    return change if higher_is_better else -change


def _change(figure: Figure, start: Metric | None, value: Metric | None) -> Change:
    if start is None or value is None:
        return Change(figure, start, value, None, f"not measured{' of the starting model' if start is None else ''}")
    relative = relative_change(value.value, start.value, higher_is_better=figure.higher_is_better)
    reason = "" if relative is not None else f"the starting model has {start.value:g}, of which nothing is a share"
    return Change(figure, start, value, relative, reason)


def _gain(run: Run, start: Run, changes: Sequence[Change], *, resamples: int, seed: int) -> Gain:
    used = [change for change in changes if change.relative is not None]
    if not used:
        return Gain(run.name, None, None, tuple(changes))
    value = 100.0 * float(np.mean([change.relative for change in used]))
    pairs = [_scores(change, start, run) for change in used]
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs):
        return Gain(run.name, value, None, tuple(changes))
    signs = [1.0 if change.figure.higher_is_better else -1.0 for change in used]
    interval = relative_gain_interval(known, signs, resamples=resamples, seed=seed)
    if interval is not None:
        interval = Interval(100.0 * interval.low, 100.0 * interval.high, interval.method)
    return Gain(run.name, value, interval, tuple(changes))


def _scores(change: Change, start: Run, run: Run) -> list[tuple[Array, Array]] | None:
    """The scores of the starting model and of the run, item by item, for each group; None: items are not stored."""
    if change.start is None or change.value is None or change.figure.unit == "nats":
        return None
    pairs = stored_pairs(change.figure.suite, change.start, change.value, start, run)
    if pairs is None or not pairs.are_all:
        return None
    groups: dict[str, list[tuple[float, float]]] = {}
    for earlier, later in zip(pairs.start, pairs.run, strict=True):
        groups.setdefault(earlier.group, []).append((earlier.score, later.score))
    arrays = [np.array(found, dtype=np.float64).T for found in groups.values()]
    return [(earlier, later) for earlier, later in arrays]
