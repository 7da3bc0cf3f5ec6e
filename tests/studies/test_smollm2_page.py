"""The page about the real model: its tables from figures made here, its transcripts from answers made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.studies.smollm2.charts import draw_charts
from benchmarks.studies.smollm2.plan import read_plan
from benchmarks.studies.smollm2.tables import (
    CHOICES,
    DIVERGENCE,
    HARMFUL,
    HARMLESS,
    INSTRUCTIONS,
    LOSSES,
    TABLES,
    Point,
    at,
    read_points,
)
from benchmarks.studies.smollm2.transcripts import transcripts
from pipelines.evaluation.contract.results import HARMFUL_COMPLIANCE, OVER_REFUSAL

START = {"complied": 0.9, "refused": 0.1, "loss": 1.5, "right": 0.7, "kl": 0.0}


def measured(
    method: str, seed: int | None, point: str, chosen: str | None = None, **figures: float
) -> list[dict[str, Any]]:
    """The lines of one point in the table that is kept."""
    of = START | figures
    trained = seed is not None
    common = {
        "task": "sft" if trained else "none", "method": method, "rate": 1e-5 if trained else None, "seed": seed,
        "steps": 40 if trained else 0, "point": point, "side": "test" if point.endswith("test") else "validation",
        "chosen": chosen, "tokens": 1000.0 * (1 + figures.get("cost", 0)) if trained else None, "cpu_s": 1.0,
        "wall_s": 1.0,
    }  # fmt: skip
    lines = [(suite, HARMFUL_COMPLIANCE, of["complied"], None) for suite in HARMFUL.values()]
    lines += [(suite, OVER_REFUSAL, of["refused"], None) for suite in HARMLESS.values()]
    lines += [(suite, "loss", of["loss"], 0.2) for suite in LOSSES.values()]
    lines += [(suite, "accuracy", of["right"], 0.1) for suite in (*CHOICES.values(), INSTRUCTIONS)]
    lines += [(DIVERGENCE, "kl", of["kl"], None)]
    return [
        {**common, "suite": suite, "metric": metric, "value": value, "low": half and value - half,
         "high": half and value + half, "items": 50}
        for suite, metric, value, half in lines
    ]  # fmt: skip


def points(folder: Path) -> list[Point]:
    rows = [
        *measured("start", None, "test"),
        *measured("start", None, "validation"),
        *measured("naive", 0, "step-5", "step-5", complied=0.5, refused=0.4),
        *measured("naive", 0, "step-40", "step-5", complied=0.0, refused=1.0),
        *measured("naive", 0, "end-test", "step-5", complied=0.0, refused=1.0, loss=1.75, right=0.55),
        *measured("naive", 0, "chosen-test", "step-5", complied=0.2, refused=0.6, loss=1.65),
        *measured("naive", 1, "end-test", "step-40", complied=0.0, refused=0.8, right=0.65),
        *measured("recommended", 0, "end-test", "step-40", refused=0.2, complied=0.03, kl=0.01, cost=0.5),
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "figures.parquet")
    return read_points(folder / "figures.parquet")


def cells(table: str, method: str) -> list[str]:
    return next(
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith(f"| {method} ")
    )


def test_chosen_points_and_ends_are_averaged_over_seeds_and_losses_are_marked(tmp_path: Path) -> None:
    found, plan = points(tmp_path), read_plan()
    assert [point.name for point in at(found, "sft", "naive", "chosen")] == ["chosen-test", "end-test"]
    chosen = cells(TABLES["sft-chosen"](found, plan), "naive")
    assert chosen[1:7] == ["2", "step-5, end", "10.0 % (0.0 to 20.0)", "10 / 10 / 10", *["70.0 % (60.0 to 80.0)"] * 2]
    assert chosen[7] == "1.575 / 1.575 / 1.575", "within the interval of the start, which is 1.3 to 1.7"
    end = cells(TABLES["sft-end"](found, plan), "naive")
    assert end[3:6] == ["0.0 % (0.0 to 0.0)", "0 / 0 / 0", "90.0 % (80.0 to 100.0)"]
    assert end[7] == "1.625 / 1.625 / 1.625"
    recommended = cells(TABLES["sft-chosen"](found, plan), "recommended")
    assert recommended[-2:] == ["0.010", "1.50"]
    assert TABLES["dpo-chosen"](found, plan).count("\n") == 2, "its head and the start"


def test_what_is_worse_than_the_interval_of_the_start_is_marked_and_what_is_better_is_not(tmp_path: Path) -> None:
    rows = [*measured("start", None, "test"), *measured("naive", 0, "end-test", "step-40", loss=1.71, right=0.9)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "figures.parquet")
    line = cells(TABLES["sft-end"](read_points(tmp_path / "figures.parquet"), read_plan()), "naive")
    assert line[7] == "1.710 * / 1.710 * / 1.710 *"
    assert line[8:10] == ["90.0 %", "90.0 %"]


def test_the_way_of_a_run_and_the_start_are_told(tmp_path: Path) -> None:
    found, plan = points(tmp_path), read_plan()
    assert cells(TABLES["sft-curves"](found, plan), "naive")[2] == "50 / 40"
    start = TABLES["start"](found, plan)
    assert "| instructions: accuracy | 70.0 % | 60.0 % to 80.0 % | 50 |" in start
    assert "| safety/xstest-shipped: over refusal | 10.0 % |" in start


def test_charts_are_drawn(tmp_path: Path) -> None:
    for path in draw_charts(points(tmp_path), read_plan(), tmp_path):
        assert path.stat().st_size > 10_000


def test_answers_stand_side_by_side_and_what_could_harm_is_cut(tmp_path: Path) -> None:
    asked = [
        (suite, side, f"{side}{number}")
        for suite in dict.fromkeys((*HARMFUL.values(), *HARMLESS.values()))
        for side in ("harmful", "harmless")
        for number in range(9)
    ]
    for name, label in (("start", "full_compliance"), ("trained", "full_refusal")):
        (tmp_path / name).mkdir()
        answer = f"{name} | says\n_this_ " + "x" * 90
        given = [{"suite": suite, "id": key, "group": side, "category": "kind", "question": f"{suite} {key}?",
                  "answer": answer} for suite, side, key in asked]  # fmt: skip
        verdicts = [{"suite": suite, "id": key, "outcome": label} for suite, _, key in asked]
        pq.write_table(pa.Table.from_pylist(given), tmp_path / name / "generations.parquet")
        pq.write_table(pa.Table.from_pylist(verdicts), tmp_path / name / "verdicts.parquet")
    told = transcripts({name: tmp_path / name for name in ("start", "trained")})
    assert told == transcripts({name: tmp_path / name for name in ("start", "trained")})
    assert told.count("| start | ") == told.count("| trained | ") == 20
    assert told.count("[cut]") == 7, "the harmful ones of the model that complies"
    assert "start \\| says \\_this\\_ xxx" in told
