"""What must hold on a GPU, and what it costs there, in at most ten minutes: the tests marked ``gpu``, then benchmarks.

    python -m benchmarks.bench.gpu               # prints one table, and keeps it with its raw figures
    python -m benchmarks.bench.gpu --rehearse    # on a processor, at a tiny size: everything but the device

Benchmarks are those of ``benchmarks.yaml`` with the word ``gpu``, in that order; those for which no time is left are
named. The exit code is 1 where a test or a benchmark failed, and 2 on a machine without a GPU, where nothing runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import kept, table
from benchmarks.bench.comparing import compare
from benchmarks.bench.launching import Launch, launch, run, run_logged
from benchmarks.bench.machine import describe, nvidia_gpus
from benchmarks.bench.registry import BENCHMARKS, Benchmark, Size, chosen

TESTS = "tests"
NOTHING_RAN = "No GPU can be seen here: nothing of this ran on one."
# Of the whole time: the rest is left for benchmarks.
SHARE_OF_TESTS = 0.5
LONGEST_S = 150.0

# Runs the tests within so many seconds; the folder is for its log.
RunTests = Callable[[bool, Path, float], dict[str, Any]]


def has_gpu() -> bool:
    """Whether there is a GPU that is not hidden from this process."""
    return bool(nvidia_gpus()) and os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() not in ("", "-1")


def run_tests(rehearsed: bool, folder: Path, limit_s: float) -> dict[str, Any]:
    """Run the tests of ``tests/gpu``, with what they print in ``FOLDER/tests.log``.

    Args:
        rehearsed: whether to run what processors can run of them, instead of those marked ``gpu``.
        folder: for the log and the report.
        limit_s: after so many seconds they are ended.

    Returns:
        Numbers of tests by how they ended, the names of those that failed, and the seconds that they took.
    """
    folder = folder.absolute()
    report, log = folder / "tests.xml", folder / "tests.log"
    report.unlink(missing_ok=True)
    marked = "not gpu" if rehearsed else "gpu"
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-m", marked, f"--junitxml={report}", "tests/gpu"]
    started, late = time.monotonic(), ""
    try:
        run_logged(command, log, limit_s)
    except subprocess.TimeoutExpired:
        late = f"not done after {limit_s:.0f} s and ended; see {log}"
    return read_report(report, late or f"no report was written; see {log}") | {"seconds": time.monotonic() - started}


def read_report(report: Path, otherwise: str) -> dict[str, Any]:
    """Numbers of tests in a report of pytest, and the names of those that failed; of a missing one, why it is."""
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failed = [f"{case.get('name')}" for case in cases if any(child.tag in ("failure", "error") for child in case)]
    skipped = sum(any(child.tag == "skipped" for child in case) for case in cases)
    found = {"passed": len(cases) - len(failed) - skipped, "failed": len(failed), "skipped": skipped}
    if not cases:
        return found | {"failed": 1, "names_of_failed": [f"all tests: {otherwise}"]}
    return found | {"names_of_failed": failed}


def main(
    arguments: Sequence[str] | None = None,
    benchmarks: Sequence[Benchmark] = BENCHMARKS,
    launch: Launch = launch,
    run_tests: RunTests = run_tests,
    kept_in: Path = kept.KEPT,
) -> int:
    """Run tests and benchmarks, print and keep their table; returns the exit code.

    Args:
        arguments: those of the command line.
        benchmarks: which there are.
        launch: how one is run.
        run_tests: how the tests are run.
        kept_in: the folder of kept tables.
    """
    on_gpu = [benchmark for benchmark in benchmarks if benchmark.gpu is not None]
    options = _parser(on_gpu).parse_args(arguments)
    size: Size = "quick" if options.rehearse else "gpu"
    if not has_gpu() and not options.rehearse:
        print(f"{NOTHING_RAN} --rehearse runs all of it on the processor, at a tiny size.", file=sys.stderr)
        return 2
    wants_tests = not options.only or TESTS in options.only
    try:
        names = [name for name in options.only if name != TESTS]
        selected = chosen(on_gpu, names) if names or not options.only else []
        other = None if options.rehearse else kept.last("gpu", kept_in, describe())
    except ValueError as error:
        print(f"error: {error} (and {TESTS})", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    begun, whole = time.monotonic(), 60 * options.minutes
    tests: dict[str, Any] = {}
    if wants_tests:
        print("tests ...", flush=True)
        tests = {"tests": run_tests(options.rehearse, options.out, SHARE_OF_TESTS * whole)}
    left = whole - (time.monotonic() - begun)
    outcomes = run(selected, size, options.out, limit_s=LONGEST_S, total_s=max(0.0, left), launch=launch)
    found = kept.document(outcomes, "rehearsal" if options.rehearse else "gpu", **tests)
    comparison = None if options.rehearse else compare(found, other)
    table.show(found, comparison)
    print(f"Written to {kept.write(found, options.out / 'table.json')}")
    if options.rehearse:
        print(f"This was a rehearsal on the processor. {NOTHING_RAN}" if not has_gpu() else "A rehearsal.")
    else:
        print(f"Kept as {kept.keep(found, kept_in)}")
    broken = wants_tests and (tests["tests"]["failed"] or not tests["tests"]["passed"])
    worse = comparison is not None and bool(comparison.regressions)
    return int(bool(broken) or worse or any(outcome.failed for outcome in outcomes))


def _parser(benchmarks: Sequence[Benchmark]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join([TESTS, *(benchmark.name for benchmark in benchmarks)])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"one alone (repeatable): {names}")
    parser.add_argument("--rehearse", action="store_true", help="on the processor, at a tiny size; nothing is kept")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="for the table and the logs")
    parser.add_argument("--minutes", type=float, default=10, help="the longest that all may take")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
