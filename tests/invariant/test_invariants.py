"""What must hold in every step of every engine: see ``invariants_worker``, which does it in one launch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.ranks import run_ranks

pytestmark = pytest.mark.distributed

ENGINES = ("zero0", "zero1", "zero2", "zero2-offload", "zero3")


@pytest.fixture(scope="module", params=[1, 2], ids=["one-process", "two-ranks"])
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = run_ranks(
        "tests.invariant.invariants_worker", tmp_path_factory.mktemp("invariants"), num_procs=request.param
    )
    assert set(found) == ({"alone"} if request.param == 1 else set(ENGINES))
    return found


def test_no_basis_is_plain_trl_to_the_bit(findings: dict[str, Any]) -> None:
    for name, finding in findings.items():
        assert finding["no basis against TRL"] == [], name


def test_refresh_leaves_no_trace(findings: dict[str, Any]) -> None:
    for name, finding in findings.items():
        assert finding["refresh thrown away"] == [], name


def test_update_space_is_orthogonal(findings: dict[str, Any]) -> None:
    leaks = {name: finding["update leak"] for name, finding in findings.items()}
    assert max(leaks.values()) <= 1e-4, leaks


def test_self_test_notices_edits_that_do_not_arrive(findings: dict[str, Any]) -> None:
    for name, finding in findings.items():
        assert "without the edit" in finding["self-test"], name


def test_each_rank_holds_its_share_of_the_basis(findings: dict[str, Any]) -> None:
    for name, finding in findings.items():
        share = finding["share"]
        if name in ("alone", "zero0"):
            continue
        assert sum(share["mine"]) == share["whole"], name
        # Stages 1 and 2 cut at equal lengths, stage 3 each tensor: a rank exceeds half by padding at most.
        assert max(share["mine"]) <= 0.51 * share["whole"], name
