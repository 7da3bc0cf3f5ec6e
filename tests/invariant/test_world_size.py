"""A run goes on with another number of processes: see ``world_size_worker``, three launches one after another."""

from __future__ import annotations

import pytest

from tests.distributed.ranks import run_ranks

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def test_two_to_one_and_one_to_two(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("world-size")
    for part, num_procs in (("begin", 2), ("change", 1), ("end", 2)):
        findings = run_ranks("tests.invariant.world_size_worker", directory, part, num_procs=num_procs)
    odd = findings.pop("odd")
    assert "takes 2 samples a step" in odd
    assert "as many processes as before (1)" in odd
    assert len(findings) == 3
    for name, finding in findings.items():
        for direction, apart in finding.items():
            assert apart["same story"], (name, direction)
            # A few steps of 1e-3: rounding, not another course.
            assert apart["weights"] <= 1e-5, (name, direction, apart)
            assert apart["losses"] <= 1e-5, (name, direction, apart)
