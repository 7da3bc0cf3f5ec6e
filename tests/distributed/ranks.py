"""Running a worker module in several real processes, and its findings."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

from tests.distributed import loaded
from tests.distributed.loaded import ROOT, Job


def run_ranks(
    module: str, directory: Path, *arguments: str, num_procs: int = 2, timeout_s: int = 3600
) -> dict[str, Any]:
    """Run ``python -m MODULE DIRECTORY ARGUMENTS`` on ranks; its findings are ``DIRECTORY/findings.json``.

    The ranks are forks of a process that has imported everything, see ``loaded``; it stays for the next call.
    """
    log = directory / "log.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_USE_CPU"):
        environment.pop(name, None)
    words = [str(directory), *arguments]
    code = loaded.call(Job(module, words, num_procs, environment, str(ROOT), str(log), str(log), timeout_s))
    if code != 0:
        raise AssertionError(f"{module} failed with {code}:\n{log.read_text(errors='replace')[-9000:]}")
    findings: dict[str, Any] = json.loads((directory / "findings.json").read_text())
    return findings


def write_findings(directory: Path, findings: dict[str, Any]) -> None:
    if os.environ.get("RANK", "0") == "0":
        (directory / "findings.json").write_text(json.dumps(findings, indent=1))


def generators() -> Any:
    """The states of torch's generators: that of the processor, and that of this process's GPU where it has one."""
    import torch

    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]
    return torch.cat(states)


def forget_engine() -> None:
    """Let a worker start another engine in the same process, as if it were a new one."""
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    # Models are loaded in shards as long as an earlier trainer's ZeRO 3 configuration is remembered.
    unset_hf_deepspeed_config()
    # A trainer without DeepSpeed would take it up from this variable, and a lone process itself for one of several.
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    if "RANK" not in os.environ:
        os.environ.pop("LOCAL_RANK", None)
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    PartialState._reset_state()
    gc.collect()
