"""Ways of training that users combine with every engine: bf16, LoRA, checkpointing, their own DeepSpeed file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from data_registry.core.errors import OgpsaError
from pipelines.commands import build_basis, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.job import on_main, rank
from pipelines.engine import processes
from tests.distributed import worlds
from tests.distributed.ranks import forget_engine, write_findings

OWN_JSON = {"zero_optimization": {"stage": 2, "contiguous_gradients": True}, "bf16": {"enabled": True}}
FP32_STAGE1 = {"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
MODES: dict[str, dict[str, Any]] = {
    "plain data parallel, bf16": {"precision": "bf16"},
    "zero0 bf16": {"zero": 0, "precision": "bf16"},
    "zero1 bf16": {"zero": 1, "precision": "bf16"},
    "zero2 bf16 checkpointing": {"zero": 2, "precision": "bf16", "gradient_checkpointing": True},
    "zero3 bf16 checkpointing": {"zero": 3, "precision": "bf16", "gradient_checkpointing": True},
    "lora data parallel": {"lora_rank": 4},
    "lora zero2": {"zero": 2, "lora_rank": 4},
    "lora zero3 bf16": {"zero": 3, "lora_rank": 4, "precision": "bf16"},
    "own file": {"deepspeed": "own.json", "precision": "bf16"},
    "refused file": {"deepspeed": "refused.json", "precision": "bf16"},
}


def run_mode(directory: Path, name: str, mode: dict[str, Any]) -> dict[str, Any]:
    forget_engine()
    engine = {"precision": "fp32", **mode}
    if "deepspeed" in engine:
        engine["deepspeed"] = directory / engine["deepspeed"]
    folder = directory / name.replace(" ", "-")
    basis = folder / "basis"
    common = {"model": str(directory / "model"), "max_length": 64, **engine}
    build_basis.run(
        BuildBasisConfig(reference=[directory / "alpha", directory / "beta"], out=basis, batch_size=3, **common)
    )
    forget_engine()
    config = TrainSftConfig(
        data=directory / "data",
        basis=basis,
        out=folder / "run",
        space="update",
        refresh_every=2,
        max_steps=4,
        learning_rate=1e-3,
        batch_size=2,
        accumulation=2,
        log_every=1,
        schedule="constant",
        **common,
    )
    run = train_sft.run(config).path
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    weights = load_file(run / "model" / ("adapter_model.safetensors" if config.lora_rank else "model.safetensors"))
    return {
        "losses": [line["loss"] for line in steps],
        "leak": max(abs(value) for line in steps for key, value in line.items() if "/leak/" in key),
        "removed": [line["projection/removed"] for line in steps],
        "refreshes": [line["step"] for line in steps if "projection/drift_degrees" in line],
        "finite": all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()),
        "trained": sum(float(tensor.float().abs().sum()) > 0 for tensor in weights.values()),
        "tensors": len(weights),
    }


def main(directory: Path) -> None:
    processes.start()
    torch.set_num_threads(1)

    def make() -> None:
        worlds.make_model(directory / "model")
        worlds.make_data(directory / "data", 32, seed=1)
        for name, seed in (("alpha", 2), ("beta", 3)):
            worlds.make_data(directory / name, 9, seed=seed)
        (directory / "own.json").write_text(json.dumps(OWN_JSON))
        (directory / "refused.json").write_text(json.dumps(FP32_STAGE1))

    on_main(make)
    findings: dict[str, Any] = {}
    for name, mode in MODES.items():
        try:
            findings[name] = run_mode(directory, name, mode)
        except OgpsaError as error:
            findings[name] = {"refused": str(error)}
        if rank() == 0:
            write_findings(directory, findings)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
