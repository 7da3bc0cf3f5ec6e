"""The GPUs that tests marked ``gpu`` may use, and processes that see them: all other tests are kept from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.bench.machine import nvidia_gpus
from tests.distributed.loaded import ROOT

# What CUDA_VISIBLE_DEVICES was before tests/conftest.py hid all GPUs; "all" where it was not set.
BEFORE = "OGPSA_TESTS_CUDA_VISIBLE_DEVICES"


def num_gpus() -> int:
    """The number of GPUs that were visible when the tests were started."""
    before = os.environ.get(BEFORE, os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    if before == "all":
        return len(nvidia_gpus())
    return min(len(nvidia_gpus()), len([device for device in before.split(",") if device.strip() not in ("", "-1")]))


def run_on_gpus(module: str, directory: Path, *arguments: str, num_procs: int = 1) -> dict[str, Any]:
    """Run ``python -m MODULE DIRECTORY ARGUMENTS`` on as many GPUs; its findings are ``DIRECTORY/findings.json``."""
    log = directory / "log.txt"
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(num_procs), "-m"]
    command = [sys.executable, "-m", *(launcher if num_procs > 1 else []), module, str(directory), *arguments]
    with log.open("w", encoding="utf-8") as output:
        run = subprocess.run(command, stdout=output, stderr=output, env=_environment(), cwd=ROOT, check=False)
    if run.returncode:
        raise AssertionError(f"{module} failed with {run.returncode}:\n{log.read_text(errors='replace')[-9000:]}")
    findings: dict[str, Any] = json.loads((directory / "findings.json").read_text())
    return findings


def _environment() -> dict[str, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "4"}
    for name in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "ACCELERATE_USE_CPU"):
        env.pop(name, None)
    before = env.pop(BEFORE, "all")
    # cuBLAS gives the same bits twice only with a workspace of fixed size.
    return env | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} | ({} if before == "all" else {"CUDA_VISIBLE_DEVICES": before})
