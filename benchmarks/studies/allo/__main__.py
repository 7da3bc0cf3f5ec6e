"""Runs the study, chooses rates, keeps the results and fills the page with them.

python -m benchmarks.studies.allo run --work DIR STAGE ...   # several processes share the work
python -m benchmarks.studies.allo choose --work DIR TASK     # the rates for plan.yaml, by the validation split
python -m benchmarks.studies.allo keep --work DIR            # all that was measured, to results/
python -m benchmarks.studies.allo page                       # tables and charts of docs/allo-study.md from these
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.studies.allo.charts import draw_charts
from benchmarks.studies.allo.materials import MaskMaterials
from benchmarks.studies.allo.plan import HERE, read_plan
from benchmarks.studies.allo.results import keep, read_results
from benchmarks.studies.allo.running import measure
from benchmarks.studies.allo.tables import TABLES, TARGET
from benchmarks.studies.allo.tokens import TokenMaterials, token_scores, write_scores
from benchmarks.studies.tradeoff.cells import fill
from benchmarks.studies.tradeoff.figures import choose_rates
from benchmarks.studies.tradeoff.outcomes import read_outcomes
from benchmarks.studies.tradeoff.plan import Run, stage_runs
from benchmarks.studies.tradeoff.workers import Worker, alone

PAGE = HERE.parents[2] / "docs" / "allo-study.md"


def main(arguments: Sequence[str] | None = None) -> int:
    plan = read_plan()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.allo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "choose", "tokens", "keep", "page"):
        command = commands.add_parser(name)
        if name != "page":
            command.add_argument("--work", type=Path, required=True, help="directory for everything that is made")
        if name == "run":
            command.add_argument("stages", nargs="+", choices=list(plan.stages), metavar="STAGE")
        if name == "choose":
            command.add_argument("task", choices=list(plan.steps))
        if name == "tokens":
            command.add_argument("worlds", nargs="+", type=int, metavar="WORLD")
    given = parser.parse_args(arguments)
    if given.command == "run":
        run_stages(given.work.absolute(), given.stages)
    elif given.command == "tokens":
        alone()
        for world in given.worlds:
            materials = TokenMaterials(given.work.absolute(), world)
            write_scores(token_scores(materials, world), given.work / "tokens" / f"scores-{world}.parquet")
    elif given.command == "keep":
        keep(given.work)
    elif given.command == "page":
        results = read_results()
        tables = {name: table(results) for name, table in TABLES.items()}
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
        draw_charts(results, PAGE.parent / "images")
    else:
        for method, rate in choose_rates(read_outcomes(given.work / "runs"), plan, given.task, "mixed", TARGET).items():
            sys.stdout.write(f"    {method}: {rate}\n")
    return 0


def run_stages(work: Path, stages: Sequence[str]) -> None:
    """Do the runs of stages that nobody has done or is doing."""
    plan = read_plan()

    def materials(run: Run) -> MaskMaterials:
        return MaskMaterials(work, plan, run.world, run.seed, plan.tasks[run.task].start)

    worker = Worker(work, materials, lambda run, made, bench, scratch: measure(run, plan, made, bench, scratch))
    for stage in stages:
        worker.do(stage, stage_runs(plan, stage))


if __name__ == "__main__":
    sys.exit(main())
