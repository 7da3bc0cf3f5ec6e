"""DPO with projection equals plain PyTorch, with every kind of objective and every engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.ranks import run_ranks

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize(("num_procs", "runs"), [(1, 4), (2, 18)], ids=["one-process", "two-ranks"])
def test_equals_plain_pytorch(tmp_path: Path, num_procs: int, runs: int) -> None:
    findings = run_ranks("tests.distributed.dpo_equality_worker", tmp_path, num_procs=num_procs)
    # fp32 arithmetic is the same whether DeepSpeed holds the weights or not, but the store tells them apart.
    assert findings.pop("stored") == 1
    assert findings.pop("effect") > 5e-5  # the methods are far further apart than the tolerance
    if num_procs > 1:
        # Stored log-probabilities that were rounded to bf16 would be 1e-2 here, and in the mean of single tokens 2e-3.
        assert findings.pop("start") <= 1e-3
        assert findings.pop("start of forgetting") <= 2e-4
    assert len(findings) == runs
    assert max(findings.values()) <= 1e-6, findings
