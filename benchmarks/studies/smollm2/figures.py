"""What was measured, as one table in Parquet, and as lines to look at while the study runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.studies.smollm2.plan import HERE
from benchmarks.studies.smollm2.running import RECORD, shares
from pipelines.evaluation.contract.results import HARMFUL_COMPLIANCE, OVER_REFUSAL, read_results

TABLE: Final = HERE / "results" / "figures.parquet"


def points(work: Path) -> Iterator[tuple[dict[str, Any], str, Path]]:
    """Every point that was measured: the record of its run (empty for the start), its name and its results."""
    for path in sorted((work / "start" / "results").iterdir()):
        yield {}, path.name, path
    for folder in sorted((work / "runs").iterdir()):
        record = json.loads((folder / RECORD).read_text(encoding="utf-8")) if (folder / RECORD).exists() else {}
        for path in sorted((folder / "results").iterdir()) if (folder / "results").exists() else ():
            if (path / "manifest.json").exists():
                yield {"name": folder.name, **record}, path.name, path


def show(work: Path) -> str:
    """Harmful compliance, over-refusal and losses of every point."""
    lines = []
    for record, name, path in points(work):
        results = read_results(path)
        found = shares(results)
        losses = {suite.suite.split("/")[-1]: suite.metrics[0].value for suite in results.suites
                  if suite.suite.startswith("reference-loss")}  # fmt: skip
        told = " ".join(f"{key.split('-')[0]} {value:.3f}" for key, value in losses.items())
        lines.append(
            f"{record.get('name', 'start'):50} {name:14} complies {100 * found[HARMFUL_COMPLIANCE]:5.1f} "
            f"over-refuses {100 * found[OVER_REFUSAL]:5.1f}  {told}\n"
        )
    return "".join(lines)


def keep(work: Path, file: Path) -> None:
    """Write all figures of the start and of the runs that are done, one row each.

    Runs that were kept before and are not in this directory stay, so that a study may go on in an empty one.

    Args:
        work: the directory of the study.
        file: the table; made where it is missing.
    """
    rows: list[dict[str, Any]] = []
    for record, name, path in points(work):
        if record and "run" not in record:
            continue
        run = record.get("run", {"task": "none", "method": "start", "rate": None, "seed": None, "steps": 0})
        side = "test" if name.endswith("test") else "validation"
        cost = {of: record.get("cost", {}).get(of) for of in ("tokens", "cpu_s", "wall_s")}
        common = {**run, "point": name, "side": side, "chosen": record.get("chosen"), **cost}
        for suite in read_results(path).suites:
            for metric in suite.metrics:
                rows.append({
                    **common, "suite": suite.suite, "metric": metric.name, "value": metric.value, "low": metric.low,
                    "high": metric.high, "items": metric.num_items,
                })  # fmt: skip
    if file.exists():
        anew = {_run_of(row) for row in rows}
        rows = [row for row in pq.read_table(file).to_pylist() if _run_of(row) not in anew] + rows
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd")


def _run_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("task", "method", "rate", "seed", "steps"))
