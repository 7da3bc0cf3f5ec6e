"""The testbed's recipe for real, shortened: from the embedded model through SFT to DPO, each step its own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_registry.core.manifest import read_manifest
from tests.cli.conftest import run_fork

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def test_the_testbeds_recipe_runs_and_a_lone_process_can_have_zero(tmp_path: Path) -> None:
    short = [f"--set={change}" for change in (
        "sft-steps=2", "dpo-steps=1", "steps.basis.num-samples=8", "steps.safety.num-samples=32",
        "steps.pairs.num-samples=16", "steps.basis.num-procs=1", "steps.basis.zero=2", "steps.sft.zero=2",
    )]  # fmt: skip
    wanted = ("model", "safety", "pairs", "assist", "reason", "basis", "sft", "dpo")
    only = [word for name in wanted for word in ("--only", name)]
    arguments = ["run", "testbed", "--out", "demo", *short, *only]
    # Nothing of a launcher is in the environment: what DeepSpeed asks for has to be set by the command.
    done = run_fork(*arguments, cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.count(" made ") == len(wanted)
    sft, dpo = read_manifest(tmp_path / "demo" / "sft"), read_manifest(tmp_path / "demo" / "dpo")
    assert sft.fingerprint in {record.fingerprint for record in dpo.inputs}
    graph = run_fork(*arguments, "--dry-run", cwd=tmp_path)
    assert graph.out.count("up to date") == len(wanted)
