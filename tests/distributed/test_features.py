"""Packing, replay and the held-out loss on two ranks: see ``features_worker``, which does it in one launch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed import odd_rows
from tests.distributed.features_worker import held_out_pairs, rows_by_step
from tests.distributed.ranks import run_ranks

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def findings(place: Path) -> dict[str, Any]:
    return run_ranks("tests.distributed.features_worker", place)


def test_packing_with_projection_and_refresh_equals_padding(findings: dict[str, Any]) -> None:
    for space in ("gradient", "update"):
        finding = findings[f"packing, {space}"]
        assert finding["sequences"] < 12
        assert finding["difference"] <= 1e-6, finding
        assert finding["change"] >= 1e-3, finding


def test_replay_does_not_depend_on_the_number_of_processes(findings: dict[str, Any], place: Path) -> None:
    alone = rows_by_step(place, "replay-alone", batch_size=4, accumulation=2)
    assert findings["replay"] == alone
    assert [len(step) for step in alone] == [8] * 5


def test_measuring_a_held_out_loss_leaves_no_trace(findings: dict[str, Any]) -> None:
    assert set(findings["held out"]) == {"data parallel", "zero2", "zero3"}
    for name, finding in findings["held out"].items():
        assert finding["unequal"] == [], name
        assert finding["log"], name
        assert len(finding["losses"]) == 5, name


def test_engines_measure_the_same_held_out_loss(findings: dict[str, Any]) -> None:
    losses = [finding["losses"] for finding in findings["held out"].values()]
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)


def test_the_best_weights_are_kept_under_zero(findings: dict[str, Any]) -> None:
    for name in ("zero2", "zero3"):
        finding = findings["held out"][name]
        losses, summary = finding["best losses"], finding["best"]
        assert summary["model_of_step"] == 1 + losses.index(min(losses)) == len(losses) - 2, name
        assert summary["stopped_early"] == len(losses) < 24, name
        assert finding["best unequal"] == [], name


def test_held_out_pairs_that_do_not_share_out_evenly(findings: dict[str, Any], place: Path) -> None:
    assert findings["held-out pairs"] == pytest.approx(held_out_pairs(place), rel=1e-6)
    assert len(findings["held-out pairs"]) == 2


def test_rows_that_do_not_divide_are_trained_once_and_count_the_same(findings: dict[str, Any], place: Path) -> None:
    for apart in (findings["odd rows"], odd_rows.apart_from_plain(place)):
        assert len(apart) == len(odd_rows.CASES)
        # Steps of 1e-3: a row that is trained twice, or counts more than another, shows at 1e-3.
        assert max(apart.values()) <= 2e-5, apart
