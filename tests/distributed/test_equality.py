"""Projected training equals plain PyTorch, whatever engine carries it and however a step's rows are divided.

A step of 8 rows is one micro-batch of 8 or four of 2 in one process, and two of 2 on each of two ranks.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.ranks import run_ranks

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize(
    ("which", "num_procs", "tolerance", "runs"),
    [
        ("untied", 1, 1e-6, 4),
        ("untied", 2, 1e-6, 12),
        ("tied", 2, 1e-5, 12),
    ],
    ids=["one-process", "two-ranks", "two-ranks-tied"],
)
def test_equals_plain_pytorch(tmp_path: Path, which: str, num_procs: int, tolerance: float, runs: int) -> None:
    findings = run_ranks("tests.distributed.equality_worker", tmp_path, which, num_procs=num_procs)
    effect = findings.pop("effect")
    rounds = findings.pop("rounds", {})
    assert len(rounds) == (4 if num_procs == 2 else 0)
    assert all(rounds.values()), rounds
    # The methods are far further apart than the tolerance, or agreement would say nothing.
    assert min(effect.values()) > 2e-4
    assert len(findings) == runs
    differences = {name: finding["difference"] for name, finding in findings.items()}
    assert max(differences.values()) <= tolerance, differences
    assert all(finding["saved"] for finding in findings.values())
    # Norms are sums over the whole model, before clipping and after projection.
    norms = {name: finding["norms"] for name, finding in findings.items()}
    assert max(norms.values()) <= 1e-4, norms
