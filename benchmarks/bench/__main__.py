"""All benchmarks in one command: one table with ours, the peer, the floor and the ratio, and what became worse.

    python -m benchmarks.bench                       # all of them, on the processor (an hour on a quiet machine)
    python -m benchmarks.bench --quick               # at a tiny size: whether they work, not how fast we are
    python -m benchmarks.bench --only merge --keep   # one of them (repeatable); the table is kept beside the code

Each benchmark runs in processes of its own. One that fails is named, and the others go on. The exit code is 1 where one
failed or something became worse, and 2 for arguments that cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import kept, table
from benchmarks.bench.comparing import compare
from benchmarks.bench.launching import Launch, launch, run
from benchmarks.bench.machine import describe
from benchmarks.bench.registry import BENCHMARKS, Benchmark, Size, chosen


def main(
    arguments: Sequence[str] | None = None,
    benchmarks: Sequence[Benchmark] = BENCHMARKS,
    launch: Launch = launch,
    kept_in: Path = kept.KEPT,
) -> int:
    """Run benchmarks, print and write their table, and compare it; returns the exit code.

    Args:
        arguments: those of the command line.
        benchmarks: which there are.
        launch: how one is run.
        kept_in: the folder of kept tables.
    """
    options = _parser(benchmarks).parse_args(arguments)
    size: Size = "quick" if options.quick else "full"
    try:
        selected = chosen(benchmarks, options.only)
        # Read before anything runs: an hour of measuring must not end with a table that cannot be read.
        other = kept.read(options.against) if options.against else kept.last(size, kept_in, describe())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    outcomes = run(selected, size, options.out, limit_s=60 * options.limit, launch=launch)
    found = kept.document(outcomes, size)
    comparison = compare(found, other)
    table.show(found, comparison)
    print(f"Written to {kept.write(found, options.out / 'table.json')}")
    if options.keep:
        print(f"Kept as {kept.keep(found, kept_in)}")
    return int(bool(comparison.regressions) or any(outcome.failed for outcome in outcomes))


def _parser(benchmarks: Sequence[Benchmark]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(benchmark.name for benchmark in benchmarks)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"one alone (repeatable): {names}")
    parser.add_argument("--quick", action="store_true", help="at a tiny size, in minutes; no figures to quote")
    parser.add_argument("--keep", action="store_true", help="keep the table in benchmarks/results")
    parser.add_argument(
        "--against", type=Path, metavar="TABLE",
        help="compare with this table instead of the last kept one of this machine",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="for the table and the logs")
    parser.add_argument("--limit", type=float, default=60, metavar="MINUTES", help="the longest one may take")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
