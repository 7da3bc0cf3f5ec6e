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
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.studies.tradeoff.cells import fill
from benchmarks.studies.tradeoff.charts import draw_charts
from benchmarks.studies.tradeoff.figures import choose_rates
from benchmarks.studies.tradeoff.materials import Materials
from benchmarks.studies.tradeoff.outcomes import read_outcomes, read_starts, read_table, write_table
from benchmarks.studies.tradeoff.plan import HERE, read_plan, stage_runs
from benchmarks.studies.tradeoff.running import measure
from benchmarks.studies.tradeoff.tables import TABLES, TARGET, Results
from benchmarks.studies.tradeoff.workers import Worker

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
    worker = Worker(
        work,
        lambda run: Materials(work, run.world, run.seed, run.references),
        lambda run, materials, bench, scratch: measure(run, plan, materials, bench, scratch),
    )
    for stage in stages:
        worker.do(stage, stage_runs(plan, stage))


if __name__ == "__main__":
    sys.exit(main())
