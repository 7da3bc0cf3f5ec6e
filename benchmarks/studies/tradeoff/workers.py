"""Several processes share the runs of a study: each takes the first that nobody has taken, and one file is one run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.studies.tradeoff.materials import Materials
from benchmarks.studies.tradeoff.plan import Run
from benchmarks.studies.tradeoff.running import Bench, write
from data_registry.testbed.suite import SPLITS
from pipelines.core.artifact import record_command

Measure = Callable[[Run, Materials, Bench, Path], Mapping[str, Any]]


class Worker:
    """One process of a study.

    Args:
        work: the directory of everything that is made.
        materials: makes the materials of a run.
        measure: does a run, with its materials, the bench and a directory for what it leaves behind.
    """

    def __init__(self, work: Path, materials: Callable[[Run], Materials], measure: Measure) -> None:
        self._work, self._materials, self._measure = work, materials, measure
        self._benches: dict[Path, Bench] = {}
        (work / "runs").mkdir(parents=True, exist_ok=True)
        alone()

    def do(self, title: str, runs: Iterable[Run]) -> None:
        """Do the runs that nobody has done or is doing."""
        runs = list(dict.fromkeys(runs))
        for number, run in enumerate(runs, start=1):
            if not self._done(run):
                self._claim(run, f"{title} {number}/{len(runs)}")

    def _done(self, run: Run) -> bool:
        return (self._work / "runs" / f"{run.name}.json").exists()

    def _claim(self, run: Run, title: str) -> None:
        """Do a run unless another process that is alive is doing it."""
        lock = self._work / "runs" / f"{run.name}.lock"
        try:
            with lock.open("x", encoding="utf-8") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            if _alive(lock):
                return
            lock.write_text(str(os.getpid()), encoding="utf-8")
        started = time.monotonic()
        if not self._done(run):
            self._do(run)
        lock.unlink(missing_ok=True)
        sys.stderr.write(f"=== {title}: {run.name}: {time.monotonic() - started:.0f} s\n")

    def _do(self, run: Run) -> None:
        materials = self._materials(run)
        model = materials.model
        if model not in self._benches:
            self._benches[model] = Bench.of(model, run.world)
        bench = self._benches[model]
        start = self._work / "runs" / f"start-{materials.start}.json"
        if not start.exists():
            model = bench.put(bench.start, 0.0)
            figures = {split: bench.scorer.figures(model, split) for split in SPLITS}
            write({"world": run.world, "start": materials.start, **figures}, start)
        record = self._measure(run, materials, bench, self._work / f"scratch-{os.getpid()}")
        write(record, self._work / "runs" / f"{run.name}.json")


def alone() -> None:
    """Make this process one that computes in one thread, without bars, and without a command that was typed."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    torch.set_num_threads(1)
    record_command([])


def _alive(lock: Path) -> bool:
    try:
        os.kill(int(lock.read_text(encoding="utf-8")), 0)
    except (OSError, ValueError):
        return False
    return True
