"""Transforms compose, under every engine: see ``transforms_worker``, one launch for each number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import run_ranks

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
TOLERANCE = 1e-6


@pytest.fixture(scope="module", params=[1, 2], ids=["one-process", "two-ranks"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory: Path = tmp_path_factory.mktemp("transforms")
    findings = run_ranks("tests.distributed.transforms_worker", directory, num_procs=request.param)
    # What is compared is far further from a run without transforms than from what it is to equal.
    assert findings.pop("effect") > 100 * TOLERANCE
    assert len(findings) == (4 if request.param == 1 else 6 * 4 + 4 + 6)
    return findings


def test_equals_plain_pytorch(found: dict[str, Any]) -> None:
    differences = {name: finding["difference"] for name, finding in found.items() if "difference" in finding}
    assert max(differences.values()) <= TOLERANCE, differences


def test_what_is_frozen_keeps_its_bits_and_the_rest_moves(found: dict[str, Any]) -> None:
    for name, finding in found.items():
        assert finding["moved though frozen"] == [], name
        assert finding["not moved"] == [], name
        assert not any(finding["summary"]), name


def test_the_tracked_change_is_that_of_the_weights(found: dict[str, Any]) -> None:
    for name, finding in found.items():
        if "lora" not in name:
            assert finding["not the change"] == [], name
            assert abs(finding["norm"]) < 1e-6, name


def test_changes_too_small_for_the_saved_model_are_tracked(found: dict[str, Any]) -> None:
    seen = [finding["seen in masters alone"] for name, finding in found.items() if name.startswith("bf16")]
    assert all(count > 1000 for count in seen)
    # To the bit, and read from a checkpoint's masters.
    assert found.get("bf16 zero2", {}).get("not the masters' change", []) == []


def test_rows_are_refreshed_at_the_same_steps_under_every_engine(found: dict[str, Any]) -> None:
    counts = {name: finding["refreshes"] for name, finding in found.items() if name.startswith("lora")}
    turning = {count for name, count in counts.items() if name.endswith("update by layer")}
    # After five steps, and again before ten, since they turn: rows that hardly turn would be left alone for ten more.
    assert not counts or (len(turning) == 1 and 1 < turning.pop() < 6), counts
