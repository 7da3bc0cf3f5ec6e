"""Runs begun by one number of ranks and finished by another; each launch is one part of the story.

``begin`` (two ranks) trains undisturbed, and begins runs that one process is to finish; ``change`` (one process)
finishes those and begins others; ``end`` (two ranks) finishes these, and compares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from data_registry.core.errors import ConfigError
from pipelines.core.job import on_main, rank
from pipelines.engine import processes
from tests.distributed.ranks import write_findings
from tests.invariant.resume_worker import BATCH, DPO, MASKED_UPDATE, ODD_ROWS, SFT, World, call, call_stopped, record

# Other ranks sum in another order; with its usual 1e-8 Adam makes whole steps of the rounding of small gradients.
PLAIN = {"trainer": {"adam_epsilon": 1e-6}}
MODES: dict[str, dict[str, Any]] = {
    "sft zero2, update space": {**SFT, **PLAIN, **MASKED_UPDATE, "zero": 2, "space": "update"},
    "sft zero3": {**SFT, **PLAIN, **ODD_ROWS, "zero": 3},
    "dpo zero2": {**DPO, **PLAIN, **ODD_ROWS, "zero": 2},
}
TWO_RANKS, ONE_RANK = BATCH // 2 // 2, BATCH // 2


def begin(world: World) -> dict[str, Any]:
    for name, mode in MODES.items():
        call(world.config(name, "whole", mode, accumulation=TWO_RANKS))
        call_stopped(world.config(name, "down", mode, accumulation=TWO_RANKS), after=5)
    return {}


def change(world: World) -> dict[str, Any]:
    for name, mode in MODES.items():
        call(world.config(name, "down", mode, accumulation=TWO_RANKS))
        call_stopped(world.config(name, "up", mode, accumulation=ONE_RANK), after=5)
    call_stopped(world.config("odd", "up", MODES["sft zero3"], accumulation=1), after=1)
    return {}


def end(world: World) -> dict[str, Any]:
    findings: dict[str, Any] = {}
    for name, mode in MODES.items():
        whole = record(call(world.config(name, "whole", mode, accumulation=TWO_RANKS)))
        down = record(call(world.config(name, "down", mode, accumulation=TWO_RANKS)))
        up = record(call(world.config(name, "up", mode, accumulation=ONE_RANK)))
        findings[name] = {"2 to 1": apart(whole, down), "1 to 2": apart(whole, up)}
    try:
        call(world.config("odd", "up", MODES["sft zero3"], accumulation=1))
        findings["odd"] = "not refused"
    except ConfigError as error:
        findings["odd"] = str(error)
    return findings


def apart(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Largest differences of weights and losses, and whether the logs tell the same story."""
    weights = max(float((a["weights"][name] - b["weights"][name]).abs().max()) for name in a["weights"])
    losses = [(x["loss"], y["loss"]) for x, y in zip(a["metrics"], b["metrics"], strict=True) if "loss" in x]
    told = [[(line["step"], line.get("learning_rate"), line["epoch"]) for line in run["metrics"]] for run in (a, b)]
    return {"weights": weights, "losses": max(abs(x - y) for x, y in losses), "same story": told[0] == told[1]}


def main(directory: Path, part: str) -> None:
    processes.start()
    torch.set_num_threads(1)
    if part == "begin":
        on_main(lambda: World(directory, dropout=0.0))
    world = World(directory, made=True)
    findings = {"begin": begin, "change": change, "end": end}[part](world)
    if rank() == 0:
        write_findings(directory, findings)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
