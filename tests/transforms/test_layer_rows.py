"""The shares removed are kept as they were given, in few bytes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.transforms.layer_rows import LayerRows


def test_rows_are_those_that_were_added_and_come_back() -> None:
    rows = LayerRows(["a", "b", "c"])
    assert not rows
    rows.add(1, [0.1, 0.2, 0.3])
    rows.add(5, iter([0.4, 0.5, 0.6]))
    expected = [(1, "a", 0.1), (1, "b", 0.2), (1, "c", 0.3), (5, "a", 0.4), (5, "b", 0.5), (5, "c", 0.6)]
    assert list(rows) == rows[:] == expected
    assert (rows[-1], rows[1:3]) == (expected[-1], expected[1:3])
    steps, _, shares = zip(*rows, strict=True)
    again = LayerRows(["a", "b", "c"])
    again.restore(steps, shares)
    assert list(again) == expected
    again.add(6, [0.0, 0.0, 0.0])
    assert again[6] == (6, "a", 0.0)


def test_the_file_is_the_one_that_the_rows_would_give(tmp_path: Path) -> None:
    rows = LayerRows(["a.weight", "b.weight"])
    for step in (1, 2, 10):
        rows.add(step, [step / 7, 0.0])
    rows.write(tmp_path / "columns.parquet")
    steps, names, removed = zip(*rows, strict=True)
    table = pa.table({"step": list(steps), "parameter": list(names), "removed": list(removed)})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert (tmp_path / "columns.parquet").read_bytes() == (tmp_path / "rows.parquet").read_bytes()


def test_a_long_run_of_a_large_model_takes_little() -> None:
    rows = LayerRows([f"layer.{index}" for index in range(300)])
    for step in range(1000):
        rows.add(step, [0.5] * 300)
    # Ten bytes a row, where tuples take more than a hundred.
    assert len(pickle.dumps(rows)) < 10 * len(rows)
