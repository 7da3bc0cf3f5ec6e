"""Runs the study, chooses rates, keeps the results and fills the page with them.

    python -m benchmarks.studies.tradeoff run --work DIR STAGE ...   # several processes share the work
    python -m benchmarks.studies.tradeoff choose --work DIR TASK     # the rates for plan.yaml, by the validation split
    python -m benchmarks.studies.tradeoff keep --work DIR            # all that was measured, to results/points.parquet
    python -m benchmarks.studies.tradeoff page                       # tables and charts of docs/tradeoff.md from these

Every run is one file in DIR/runs, and what is done is not done again. A worker takes the first run that nobody has
taken.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.studies.tradeoff.charts import draw_charts
from benchmarks.studies.tradeoff.figures import choose_rates
from benchmarks.studies.tradeoff.materials import Materials
from benchmarks.studies.tradeoff.outcomes import read_outcomes, read_starts, read_table, write_table
from benchmarks.studies.tradeoff.plan import HERE, Run, read_plan, stage_runs
from benchmarks.studies.tradeoff.running import Bench, measure, write
from benchmarks.studies.tradeoff.tables import TABLES, TARGET, Results, fill
from data_registry.testbed.suite import SPLITS
from pipelines.core.artifact import record_command

TABLE = HERE / "results" / "points.parquet"
PAGE = HERE.parents[2] / "docs" / "tradeoff.md"


def main(arguments: Sequence[str] | None = None) -> int:
    plan = read_plan()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.tradeoff",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "choose", "keep", "page"):
        command = commands.add_parser(name)
        if name != "page":
            command.add_argument("--work", type=Path, required=True, help="directory for everything that is made")
        if name == "run":
            command.add_argument("stages", nargs="+", choices=list(plan.stages), metavar="STAGE")
        if name == "choose":
            command.add_argument("task", choices=list(plan.steps))
    given = parser.parse_args(arguments)
    if given.command == "run":
        run_stages(given.work.absolute(), given.stages)
    elif given.command == "choose":
        for method, rate in choose_rates(read_outcomes(given.work / "runs"), plan, given.task, "mixed", TARGET).items():
            sys.stdout.write(f"    {method}: {rate}\n")
    elif given.command == "keep":
        write_table(read_outcomes(given.work / "runs"), read_starts(given.work / "runs"), TABLE)
    else:
        results = Results(plan, *read_table(TABLE))
        PAGE.write_text(
            fill(PAGE.read_text(encoding="utf-8"), {name: table(results) for name, table in TABLES.items()}),
            encoding="utf-8",
        )
        draw_charts(results, PAGE.parent / "images")
    return 0


def run_stages(work: Path, stages: Sequence[str]) -> None:
    """Do the runs of stages that nobody has done or is doing."""
    plan = read_plan()
    (work / "runs").mkdir(parents=True, exist_ok=True)
    _alone()
    for stage in stages:
        runs = list(dict.fromkeys(stage_runs(plan, stage)))
        for number, run in enumerate(runs, start=1):
            if not _done(work, run):
                _claim(work, run, f"{stage} {number}/{len(runs)}")


def _alone() -> None:
    """Make this process one that computes in one thread, without bars, and without a command that was typed."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    torch.set_num_threads(1)
    record_command([])


def _done(work: Path, run: Run) -> bool:
    return (work / "runs" / f"{run.name}.json").exists()


def _claim(work: Path, run: Run, title: str) -> None:
    """Do a run unless another process that is alive is doing it."""
    lock = work / "runs" / f"{run.name}.lock"
    try:
        with lock.open("x", encoding="utf-8") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        if _alive(lock):
            return
        lock.write_text(str(os.getpid()), encoding="utf-8")
    started = time.monotonic()
    if not _done(work, run):
        _do(work, run)
    lock.unlink(missing_ok=True)
    sys.stderr.write(f"=== {title}: {run.name}: {time.monotonic() - started:.0f} s\n")


def _alive(lock: Path) -> bool:
    try:
        os.kill(int(lock.read_text(encoding="utf-8")), 0)
    except (OSError, ValueError):
        return False
    return True


def _do(work: Path, run: Run) -> None:
    materials = Materials(work, run.world, run.seed, run.references)
    if run.world not in _BENCHES:
        _BENCHES[run.world] = Bench.of(materials.model, run.world)
    bench = _BENCHES[run.world]
    start = work / "runs" / f"start-{run.world}.json"
    if not start.exists():
        figures: dict[str, Any] = {split: bench.scorer.figures(bench.put(bench.start, 0.0), split) for split in SPLITS}
        write({"world": run.world, **figures}, start)
    record = measure(run, read_plan(), materials, bench, work / f"scratch-{os.getpid()}")
    write(record, work / "runs" / f"{run.name}.json")


_BENCHES: dict[int, Bench] = {}


if __name__ == "__main__":
    sys.exit(main())
