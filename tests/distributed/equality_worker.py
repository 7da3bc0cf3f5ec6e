"""Trains one model under every engine configuration through the recipe; measures the distance to plain PyTorch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pipelines.commands import build_basis, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.job import on_main, rank, world_size
from pipelines.engine import processes
from pipelines.transforms.chain import TransformChain
from tests.distributed import worlds
from tests.distributed.ranks import forget_engine, write_findings
from tests.reference import plain

STEPS, ROWS, LR, DECAY, CLIP, REFRESH = 6, 8, 1e-4, 0.1, 0.5, 2
# Adam divides by |g| + EPS: with its default of 1e-8, rounding of the smallest gradients alone moves weights by 2e-6.
EPS = 1e-6
ENGINES: dict[str, dict[str, Any]] = {
    "alone, 4 micro-batches": {},
    "alone, whole batch": {"micro": ROWS},
    "zero0": {"zero": 0},
    "zero1": {"zero": 1},
    "zero2": {"zero": 2},
    "zero2-offload": {"zero": 2, "offload": True},
    "zero3": {"zero": 3},
    "zero3-offload": {"zero": 3, "offload": True},
}


def make_world(directory: Path, *, tied: bool) -> tuple[Path, Path, list[Path]]:
    model = worlds.make_model(directory / "model", tied=tied)
    data = worlds.make_data(directory / "data", STEPS * ROWS, seed=1)
    pools = [worlds.make_data(directory / name, 13, seed=seed) for name, seed in (("alpha", 2), ("beta", 3))]
    return model, data, pools


def plain_run(model: Path, data: Path, pools: list[Path], space: str) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The weights at the end, and the norm of each step's gradient."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    norms = plain.train(
        network,
        worlds.encoded(data, model),
        [worlds.encoded(pool, model) for pool in pools],
        steps=STEPS,
        rows_per_step=ROWS,
        lr=LR,
        weight_decay=DECAY,
        max_norm=CLIP,
        eps=EPS,
        refresh_every=REFRESH if pools else 0,
        space=space,
    )
    return {name: p.detach() for name, p in network.named_parameters()}, norms


def trained_weights(
    directory: Path, model: Path, data: Path, basis: Path, space: str, micro: int, engine: dict[str, Any]
) -> Path:
    config = TrainSftConfig(
        model=str(model),
        data=data,
        basis=basis,
        out=directory,
        space=space,  # type: ignore[arg-type]
        refresh_every=REFRESH,
        max_steps=STEPS,
        learning_rate=LR,
        weight_decay=DECAY,
        max_grad_norm=CLIP,
        schedule="constant",
        batch_size=micro,
        accumulation=ROWS // micro // world_size(),
        log_every=1,
        trainer={"train_sampling_strategy": "sequential", "adam_epsilon": EPS},
        **{"precision": "fp32", **engine},
    )
    return train_sft.run(config).path


def logged_norms(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["grad_norm"] for line in lines if "loss" in line]


def worst_ratio(values: list[float], wanted: list[float]) -> float:
    return max(abs(value / norm - 1) for value, norm in zip(values, wanted, strict=True))


def same_in_rounds(directory: Path, name: str, model: Path, data: Path, basis: Path) -> bool:
    """Whether a step in many rounds, each of few of the model's tensors, gives the bits of a step in one."""
    defaults = TransformChain.__init__.__kwdefaults__
    whole = defaults["round_elements"]
    defaults["round_elements"] = 3000
    try:
        forget_engine()
        out = trained_weights(directory / f"{name}-rounds", model, data, basis, "update", 2, dict(ENGINES[name]))
    finally:
        defaults["round_elements"] = whole
    if rank() > 0:
        return True
    one, other = (load_file(run / "model" / "model.safetensors") for run in (out, directory / f"{name}-update"))
    return all(torch.equal(one[key], other[key]) for key in other)


def main(directory: Path, which: str) -> None:
    processes.start()
    torch.set_num_threads(1)
    findings: dict[str, Any] = {}
    tied = which == "tied"
    world = on_main(lambda: make_world(directory, tied=tied))
    model, data, pools = world
    basis = directory / "basis"
    build_basis.run(BuildBasisConfig(model=str(model), reference=pools, out=basis, precision="fp32", batch_size=3))
    runs = {space: plain_run(model, data, pools, space) for space in ("gradient", "update")}
    expected = {space: weights for space, (weights, _) in runs.items()}
    # How far apart the methods are, so that agreement means something.
    naive, _ = plain_run(model, data, [], "gradient")
    findings["effect"] = {
        space: max(float((weights[key] - naive[key]).abs().max()) for key in naive)
        for space, weights in expected.items()
    }
    names = [name for name in ENGINES if name.startswith("alone") == (world_size() == 1)]
    for name in names:
        for space in expected:
            forget_engine()
            out = directory / f"{name}-{space}"
            engine = dict(ENGINES[name])
            micro = engine.pop("micro", 2)
            trained_weights(out, model, data, basis, space, micro, engine)
            if rank() == 0:
                saved = load_file(out / "model" / "model.safetensors")
                wanted = expected[space]
                differences = {key: float((saved[key] - wanted[key]).abs().max()) for key in wanted}
                worst = max(differences, key=lambda key: differences[key])
                findings[f"{name}-{space}"] = {
                    "difference": differences[worst],
                    "where": worst,
                    # Tied weights are one tensor.
                    "saved": saved.keys() == wanted.keys(),
                    "norms": worst_ratio(logged_norms(out), runs[space][1]),
                }
    if world_size() == 2:
        findings["rounds"] = {
            name: same_in_rounds(directory, name, model, data, basis)
            for name in ("zero0", "zero1", "zero2-offload", "zero3")
        }
    write_findings(directory, findings)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
