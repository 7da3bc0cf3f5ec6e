"""Runs the study, shows how far it is, and keeps the results.

    python -m benchmarks.studies.smollm2 run --work DIR STAGE ...
    python -m benchmarks.studies.smollm2 show --work DIR               # what every measured point came to
    python -m benchmarks.studies.smollm2 keep --work DIR               # all figures, to results/figures.parquet
    python -m benchmarks.studies.smollm2 page                          # tables and charts of docs/smollm2.md from these
    python -m benchmarks.studies.smollm2 transcripts NAME=RESULTS ...  # answers side by side, as Markdown

A run that is done is not done again, and one that was killed goes on with what was not evaluated yet.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.studies.smollm2.charts import draw_charts
from benchmarks.studies.smollm2.figures import TABLE, keep, show
from benchmarks.studies.smollm2.materials import Materials
from benchmarks.studies.smollm2.plan import HERE, read_plan, stage_runs
from benchmarks.studies.smollm2.running import RECORD, evaluate, measure
from benchmarks.studies.smollm2.tables import TABLES, read_points
from benchmarks.studies.smollm2.transcripts import transcripts
from benchmarks.studies.tradeoff.cells import fill
from pipelines.core.artifact import record_command

PAGE = HERE.parents[2] / "docs" / "smollm2.md"


def main(arguments: Sequence[str] | None = None) -> int:
    plan = read_plan()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.smollm2",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "show", "keep"):
        command = commands.add_parser(name)
        command.add_argument("--work", type=Path, required=True, help="directory for everything that is made")
        if name == "run":
            command.add_argument("stages", nargs="+", choices=list(plan.stages), metavar="STAGE")
    commands.add_parser("page")
    commands.add_parser("transcripts").add_argument("results", nargs="+", metavar="NAME=RESULTS")
    given = parser.parse_args(arguments)
    if given.command == "run":
        run_stages(given.work.absolute(), given.stages)
    elif given.command == "show":
        sys.stdout.write(show(given.work))
    elif given.command == "keep":
        keep(given.work, TABLE)
    elif given.command == "page":
        points = read_points()
        tables = {name: table(points, plan) for name, table in TABLES.items()}
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
        draw_charts(points, plan, PAGE.parent / "images")
    else:
        named = (text.partition("=") for text in given.results)
        sys.stdout.write(transcripts({name: Path(folder) for name, _, folder in named}))
    return 0


def run_stages(work: Path, stages: Sequence[str]) -> None:
    """Do the runs of stages that are not done."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    record_command([])
    plan = read_plan()
    materials = Materials(work, plan)
    for side in ("validation", "test"):
        evaluate(materials.model, plan, materials, work / "start" / "results" / side, side)
    for stage in stages:
        for run in stage_runs(plan, stage):
            folder = work / "runs" / run.name
            if (folder / RECORD).exists():
                continue
            started = time.monotonic()
            measure(run, plan, materials, folder)
            sys.stderr.write(f"=== {stage}: {run.name}: {time.monotonic() - started:.0f} s\n")


if __name__ == "__main__":
    sys.exit(main())
