"""Anchors under every engine: see ``anchors_worker``, one launch for each number of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.ranks import run_ranks

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
TOLERANCE = 1e-6


@pytest.mark.parametrize("num_procs", [1, 2])
def test_equals_plain_pytorch_however_a_step_is_cut(num_procs: int, tmp_path: Path) -> None:
    findings = run_ranks("tests.distributed.anchors_worker", tmp_path, num_procs=num_procs)
    assert findings.pop("sampled rows") == 7
    assert findings.pop("effect") > 100 * TOLERANCE
    assert findings.pop("weight 0") == 0
    assert findings.pop("smallest gap") > 100 * TOLERANCE
    assert len(findings) == (2 * 8 if num_procs == 1 else 6 * 8 + 2)
    assert max(findings.values()) <= TOLERANCE, findings
