"""What the runs came to: the point of each that a user's procedure chooses, and all points as one table in Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.studies.tradeoff.plan import Run
from data_registry.testbed.suite import SPLITS

Procedure = Literal["trained", "stopped", "mixed", "hindsight"]
PROCEDURES: Final[dict[Procedure, str]] = {
    "trained": "as it is after the last step",
    "stopped": "the first step, of every tenth, at which validation safety is at the target",
    "mixed": "the smallest share of the way from start to end beyond which validation safety is at the target",
    "hindsight": "the same with test safety in place of validation safety, which no user knows",
}
_RUN: Final = ("task", "method", "rate", "references", "world", "seed", "steps")


@dataclass(frozen=True)
class Point:
    """Weights that were measured.

    Attributes:
        step: the step.
        alpha: the share of the way from the starting model to the weights of the step.
        tokens: the tokens of training up to the step; see :class:`Cost`.
        validation: the figures of the validation split; safety alone where no more was measured.
        test: the figures of the test split; empty where none was measured.
        norm: the norm of the change of all weights from the start; None where it was not measured.
        answers: whether each item of the test counts, as a string of 0 and 1; empty where that was not kept.
    """

    step: int
    alpha: float
    tokens: float
    validation: Mapping[str, float]
    test: Mapping[str, float]
    norm: float | None = None
    answers: str = ""


@dataclass(frozen=True)
class Outcome:
    """A run with what was measured of it.

    Attributes:
        run: the run.
        tokens: the tokens of all training and of what had to be made before it.
        cpu_s: the same in seconds of CPU time.
        setup_tokens: the tokens of what had to be made before.
        setup_s: the same in seconds of CPU time.
        points: the points in the order in which they were measured: the steps, then from the last step to the start.
        left: what the transforms of the run said at its end, as numbers.
    """

    run: Run
    tokens: float
    cpu_s: float
    setup_tokens: float
    setup_s: float
    points: tuple[Point, ...]
    left: Mapping[str, float] = field(default_factory=dict)

    def chosen(self, procedure: Procedure, target: float) -> tuple[Point, bool]:
        """The point that a procedure chooses, and whether it reaches the target; the last step where none does.

        Args:
            procedure: a key of ``PROCEDURES``.
            target: safety, from 0 to 1.
        """
        last = max(point.step for point in self.points)
        way = [point for point in self.points if point.step == last]
        split = "test" if procedure == "hindsight" else "validation"
        if procedure == "trained":
            return way[0], way[0].validation["safe"] >= target
        if procedure == "stopped":
            steps = (point for point in self.points if point.alpha == 1.0 and point.test)
            return next(((point, True) for point in steps if point.validation["safe"] >= target), (way[0], False))
        chosen = None
        for point in way:
            safe = getattr(point, split).get("safe")
            if safe is not None and safe < target:
                break
            if safe is not None and point.test:
                chosen = point
        return (way[0], False) if chosen is None else (chosen, True)


def read_outcomes(folder: Path) -> list[Outcome]:
    """Read the records of all runs that are finished."""
    return [
        _outcome(json.loads(file.read_text(encoding="utf-8")))
        for file in sorted(folder.glob("*.json"))
        if not file.name.startswith("start-")
    ]


def read_starts(folder: Path) -> dict[int, dict[str, dict[str, float]]]:
    """Read the figures of the starting models: world, split, figure."""
    found = (json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("start-*.json")))
    return {record["world"]: {split: record[split] for split in SPLITS} for record in found}


def _outcome(record: Mapping[str, Any]) -> Outcome:
    training, setup = record["cost"]["training"], record["cost"]["setup"]
    points = tuple(
        Point(
            point["step"], point["alpha"], point["tokens"], point["validation"], point.get("test", {}),
            point.get("norm"), point.get("answers", ""),
        )
        for point in record["points"]
    )  # fmt: skip
    left = {name: float(value) for name, value in record.get("left", {}).items() if isinstance(value, int | float)}
    tokens, seconds = (training[name] + setup[name] for name in ("tokens", "cpu_s"))
    return Outcome(Run(**record["run"]), tokens, seconds, setup["tokens"], setup["cpu_s"], points, left)


def write_table(
    outcomes: Iterable[Outcome], starts: Mapping[int, Mapping[str, Mapping[str, float]]], file: Path
) -> None:
    """Write all points as Parquet, one row each; starting models are rows of the method ``start``."""
    rows = [*_start_rows(starts), *(row for outcome in outcomes for row in _rows(outcome))]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    arrays = {name: _array(name, values) for name, values in columns.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays), file, compression="zstd", compression_level=19)


def read_table(file: Path) -> tuple[list[Outcome], dict[int, dict[str, dict[str, float]]]]:
    """Read outcomes and starting models back from the table."""
    runs: dict[Run, list[dict[str, Any]]] = {}
    starts: dict[int, dict[str, dict[str, float]]] = {}
    for row in pq.read_table(file).to_pylist():
        if row["method"] == "start":
            starts[row["world"]] = {split: _figures(row, split) for split in SPLITS}
        else:
            runs.setdefault(Run(**{name: row[name] for name in _RUN}), []).append(row)
    outcomes = []
    for run, rows in runs.items():
        points = tuple(
            Point(
                row["step"], row["alpha"], row["tokens"], *(_figures(row, split) for split in SPLITS),
                row.get("norm"), row.get("answers") or "",
            )
            for row in rows
        )  # fmt: skip
        tokens, seconds, setup, setup_s = (rows[0][name] for name in ("all_tokens", "cpu_s", "setup_tokens", "setup_s"))
        outcomes.append(Outcome(run, tokens, seconds, setup, setup_s, points, _figures(rows[0], "left")))
    return outcomes, starts


def _rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    run = {name: getattr(outcome.run, name) for name in _RUN}
    cost = {
        "all_tokens": outcome.tokens,
        "cpu_s": outcome.cpu_s,
        "setup_tokens": outcome.setup_tokens,
        "setup_s": outcome.setup_s,
    }
    for point in outcome.points:
        figures = {f"{split}/{name}": value for split in SPLITS for name, value in getattr(point, split).items()}
        left = {f"left/{name}": value for name, value in outcome.left.items()}
        more: dict[str, Any] = {"norm": point.norm} if point.norm is not None else {}
        if point.answers:
            more["answers"] = point.answers
        yield {
            **run, **cost, **left, "step": point.step, "alpha": point.alpha, "tokens": point.tokens, **more, **figures,
        }  # fmt: skip


def _start_rows(starts: Mapping[int, Mapping[str, Mapping[str, float]]]) -> Iterator[dict[str, Any]]:
    for world, splits in starts.items():
        figures = {f"{split}/{name}": value for split in SPLITS for name, value in splits[split].items()}
        yield {"task": "none", "method": "start", "world": world, **figures}


def _figures(row: Mapping[str, Any], split: str) -> dict[str, float]:
    begin = f"{split}/"
    return {
        name.removeprefix(begin): value for name, value in row.items() if name.startswith(begin) and value is not None
    }


def _array(name: str, values: Sequence[Any]) -> pa.Array:
    given = [value for value in values if value is not None]
    if given and isinstance(given[0], str):
        return pa.array(values).dictionary_encode()
    # Shares of at most some hundred items: half of the precision keeps the file small, and rounding does the rest.
    if name.partition("/")[0] in SPLITS:
        return pa.array([None if value is None else round(value, 5) for value in values], pa.float32())
    return pa.array(values)
