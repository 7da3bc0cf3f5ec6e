"""Runs a study: every cell of its grid in every repetition, in this process, and makes a table of the figures.

    python -m benchmarks.studies.grid STUDY --work DIR [--only CELL] [--set NAME=VALUE] [--keep]

STUDY is a folder with a ``study.yaml``, or the name of one beside this file. Interrupted or killed, the same command
goes on from what lies in DIR: a finished cell is not run again, and what cells have in common is made once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.studies.study import Grid, Run, read_grid
from benchmarks.studies.table import read_figures, to_markdown, to_record
from data_registry.core import stopping
from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, OgpsaError, Preempted
from data_registry.core.manifest import is_artifact
from pipelines.core import log
from pipelines.core.artifact import record_command
from pipelines.core.placing import write_text_durably
from pipelines.recipes.in_process import run_steps

HERE = Path(__file__).parent


def run_study(
    folder: Path, work: Path, *, only: Sequence[str] = (), sets: Sequence[str] = (), keep: bool = False
) -> str:
    """Run what is not finished of a study.

    Args:
        folder: the folder of the study.
        work: the directory that everything is written to.
        only: the names of the cells to run; empty for all.
        sets: the changes to make in all cells, as ``NAME=VALUE``.
        keep: also write the figures to ``results/DATE.json`` in the study's folder.

    Returns:
        The table of the cells that were run, as Markdown.

    Raises:
        OgpsaError: the study cannot be used, or a step failed; steps that were finished before stay.
    """
    grid = read_grid(folder, work.absolute(), sets)
    unknown = [
        f"there is no cell '{name}'{suggest(name, list(grid.study.cells))}"
        for name in only
        if name not in grid.study.cells
    ]
    if unknown:
        raise ConfigError(unknown, fix=f"the cells are {', '.join(grid.study.cells)}")
    if keep and only:
        raise ConfigError("--keep writes the figures of the whole study", fix="leave out --only")
    runs = [run for run in grid.runs if not only or run.cell in only]
    for number, run in enumerate(runs, start=1):
        _finish(grid, run, f"{number} of {len(runs)}: {run.cell}{f', {run.repetition}' if run.repetition else ''}")
    figures = read_figures(grid, runs)
    if keep:
        results = folder / "results"
        results.mkdir(exist_ok=True)
        target = results / f"{datetime.now(UTC).date().isoformat()}.json"
        write_text_durably(target, to_record(folder.name, figures, sets))
    return to_markdown(figures, list(grid.study.figures))


def _finish(grid: Grid, run: Run, title: str) -> None:
    if is_artifact(run.results):
        sys.stderr.write(f"=== {title}: finished\n")
        return
    sys.stderr.write(f"=== {title}\n")
    if run.inputs is not None and grid.study.inputs is not None:
        run.inputs.mkdir(parents=True, exist_ok=True)
        importlib.import_module(grid.study.inputs).write(run.inputs, run.variables)
    run_steps(run.steps, threads=grid.threads)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.grid",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", help="a folder with a study.yaml, or the name of one beside this file")
    parser.add_argument("--work", type=Path, required=True, help="directory for everything that is made")
    parser.add_argument("--only", action="append", default=[], metavar="CELL", help="run this cell alone; repeatable")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="sets",
                        help="change a variable, or steps.STEP.OPTION, in all cells; repeatable")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="also write the figures to the study's results/DATE.json")
    given = parser.parse_args(arguments)
    from ogpsa_cli import console

    folder = Path(given.study) if Path(given.study).is_dir() else HERE / given.study
    stopping.listen()
    if not sys.stderr.isatty():
        # This turns off the bars of other libraries; without a terminal, ours are plain lines.
        os.environ.setdefault("TQDM_DISABLE", "1")
    log.configure()
    # No command of ogpsa was typed; each step records a command of its own.
    record_command([])
    try:
        with console.results_apart():
            console.write(run_study(folder, given.work, only=given.only, sets=given.sets, keep=given.keep).rstrip("\n"))
    except stopping.StopRequested:
        sys.stderr.write(stopping.said() + "\n")
        return Preempted.exit_code
    except Preempted as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OgpsaError as error:
        console.show_ogpsa_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
