"""A sweep of mixes: what a point holds, which one is chosen, and what is written."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluation import registry
from pipelines.evaluation.contract.results import Metric, Results, SuiteResults, SuiteSettings
from pipelines.reporting.figures import role_of
from pipelines.reporting.sweep import SweepPoint, choose, draw_curve, sweep_points, table_lines, write_curve

SETTINGS = SuiteSettings(
    version="1", split="validation", prompt_hash="p", template_hash="t", decoding="greedy", scoring="rule"
)


def metric(name: str, value: float, *, higher: bool = True, unit: str = "share", headline: bool = True) -> Metric:
    return Metric(
        name=name, value=value, num_items=10, higher_is_better=higher, unit=unit, groups=("g",), headline=headline
    )  # type: ignore[arg-type]


def results(safe: float, complied: float, refused: tuple[float, float], skills: tuple[float, float]) -> Results:
    suites = (
        SuiteResults(
            suite="testbed",
            settings=SETTINGS,
            metrics=(
                metric("safe", safe),
                metric("over_refusal", refused[0], higher=False),
                metric("general", skills[0]),
                metric("count", 0.0, headline=False),
            ),
        ),
        SuiteResults(
            suite="mine",
            settings=SETTINGS,
            metrics=(
                metric("harmful_compliance", complied, higher=False),
                metric("over_refusal", refused[1], higher=False),
            ),
        ),
        SuiteResults(suite="gsm8k/test", settings=SETTINGS, metrics=(metric("accuracy", skills[1]),)),
        SuiteResults(
            suite="reference-loss/a", settings=SETTINGS, metrics=(metric("loss", 1.5, higher=False, unit="nats"),)
        ),
    )
    return Results(run="mix", model="m", model_fingerprint="f", suites=suites)


def point(share: float, safety: float | None) -> SweepPoint:
    return SweepPoint(share, safety, None, None, {})


def test_a_point_holds_the_worst_safety_and_the_means_of_the_rest() -> None:
    found = sweep_points([1.0, 0.5], [results(0.99, 0.1, (0.2, 0.4), (0.5, 0.7)), results(0.5, 0.0, (0, 0), (1, 1))])
    assert [each.share for each in found] == [0.5, 1.0]
    assert (found[0].safety, found[0].over_refusal, found[0].capability) == (0.5, 0, 1)
    assert found[1].safety == pytest.approx(0.9)
    assert found[1].over_refusal == pytest.approx(0.3)
    assert found[1].capability == pytest.approx(0.6)
    assert found[1].losses == {"reference-loss/a:loss": 1.5}


@given(st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.5, 0.98, 0.99, 1.0])), min_size=1, max_size=12))
def test_the_choice_is_the_smallest_share_from_which_on_all_are_safe(safeties: list[float | None]) -> None:
    points = [point(float(index), safety) for index, safety in enumerate(safeties)]
    good = [
        index
        for index in range(len(points))
        if all(safety is not None and safety >= 0.99 for safety in safeties[index:])
    ]
    chosen = choose(points, 0.99)
    assert (chosen.share if chosen is not None else None) == (float(min(good)) if good else None)


def test_what_is_written(tmp_path: Path) -> None:
    measured = [results(0.9, 0.3, (0.1, 0.1), (0.9, 0.8)), results(1.0, 0.0, (0.5, 0.5), (0.6, 0.6))]
    points = sweep_points([0.5, 1.0], measured)
    chosen = choose(points, 0.99)
    assert table_lines(points, chosen) == [
        ["share", "safe %", "over-refusal %", "capability %", "reference-loss/a:loss", ""],
        ["0.5", "70.0", "10.0", "85.0", "1.5000", ""],
        ["1", "100.0", "50.0", "60.0", "1.5000", "chosen"],
    ]
    write_curve(tmp_path, points, chosen, measured, ["Chosen: 1."])
    draw_curve(tmp_path / "curve.png", points, chosen, 0.99)
    table = parquet.read_table(tmp_path / "curve.parquet").to_pylist()
    assert len(table) == 2 * 8
    assert {(row["suite"], row["name"]): row["role"] for row in table}["mine", "harmful_compliance"] == "safety"
    assert "Chosen: 1." in (tmp_path / "curve.md").read_text()
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_suite_with_a_validation_side_is_measured_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"mine": registry.SUITES["testbed"], "mine-validation": registry.SUITES["testbed"]}
    monkeypatch.setattr(registry, "SUITES", entries)
    assert [registry.validation_side(name) for name in ("mine", "mine-validation", "my.yaml")] == [
        "mine-validation", "mine-validation", "my.yaml",
    ]  # fmt: skip


def test_the_validation_side_of_a_suite_says_the_same_as_the_suite() -> None:
    for suite in ("testbed", "testbed-validation"):
        names = {"safe": "safety", "over_refusal": "over-refusal", "general": "capability"}
        assert {name: role_of(suite, metric(name, 0.5)) for name in names} == names
