"""Progress of long work: a bar on a terminal, one plain line now and then elsewhere, nothing on other ranks."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from data_registry.core import stopping
from data_registry.core.visible import visible
from pipelines.core.job import rank

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_EVERY_S = 10.0

_shown: list[Progress] = []


def stop_all() -> None:
    """Remove the bars that an exception left on the screen: a bar that stays holds back everything else printed."""
    while _shown:
        _shown.pop().stop()


class Progress:
    """Counts work done and shows it.

    Args:
        label: a word for the work, such as ``"training"``.
        total: the number of units, or ``None`` when unknown.
        unit: the name of the units, such as ``"steps"``.
        start: the number of units that were done before, for work that is continued.
    """

    def __init__(self, label: str, total: int | None = None, unit: str = "items", start: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self._start = start
        self._started = time.monotonic()
        self._last_line = self._started
        self._lines = 0
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        if rank() == 0 and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self.unit, markup=False),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            _shown.append(self)
            self._task = self._bar.add_task(visible(self.label), total=self.total, completed=self.done, figures="")
        return self

    def advance(self, count: int = 1, figures: str = "") -> None:
        """Count ``count`` more units as done; ``figures`` is a short text such as ``"loss 1.23"``.

        Raises:
            StopRequested: a signal asked this process to stop, and a library swallowed it.
        """
        stopping.check()
        self.done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, figures=visible(figures))
            return
        now = time.monotonic()
        if rank() == 0 and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self._write_line(figures)

    def _write_line(self, figures: str) -> None:
        self._lines += 1
        sys.stderr.write(visible(self._line(figures)) + "\n")
        sys.stderr.flush()

    def _line(self, figures: str) -> str:
        elapsed = time.monotonic() - self._started
        rate = (self.done - self._start) / elapsed if elapsed else 0.0
        of = f"/{self.total}" if self.total is not None else ""
        left = f", {duration_text((self.total - self.done) / rate)} left" if self.total is not None and rate else ""
        return f"{self.label}: {self.done}{of} {self.unit}, {rate:.3g}/s{left}{', ' + figures if figures else ''}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is None and self._lines and kind is None:
            # A reader who saw the work begin should also see it end.
            self._write_line("")
        self.stop()

    def stop(self) -> None:
        """Remove the bar; nothing more is shown."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self in _shown:
            _shown.remove(self)


def duration_text(seconds: float) -> str:
    """A time span for people: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
