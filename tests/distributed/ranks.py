"""Running a worker module in several real processes, and its findings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(
    module: str, directory: Path, *arguments: str, num_procs: int = 2, timeout_s: int = 3600
) -> dict[str, Any]:
    """Run ``python -m MODULE DIRECTORY ARGUMENTS`` on ranks; its findings are ``DIRECTORY/findings.json``.

    The launch is torchrun's, so that the tests do not stand on the project's own.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_USE_CPU"):
        environment.pop(name, None)
    command = [sys.executable, "-m", module, str(directory), *arguments]
    if num_procs > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_procs), "-m"]
        command = [sys.executable, *launcher, module, str(directory), *arguments]
    run = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if run.returncode != 0:
        raise AssertionError(f"{module} failed with {run.returncode}:\n{run.stdout[-3000:]}\n{run.stderr[-6000:]}")
    findings: dict[str, Any] = json.loads((directory / "findings.json").read_text())
    return findings


def write_findings(directory: Path, findings: dict[str, Any]) -> None:
    if os.environ.get("RANK", "0") == "0":
        (directory / "findings.json").write_text(json.dumps(findings, indent=1))


def forget_engine() -> None:
    """Let a worker start another engine in the same process, as if it were a new one."""
    import gc

    from accelerate.state import AcceleratorState, GradientState, PartialState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    # Models are loaded in shards as long as an earlier trainer's ZeRO 3 configuration is remembered.
    unset_hf_deepspeed_config()
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    PartialState._reset_state()
    gc.collect()
