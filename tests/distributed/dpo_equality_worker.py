"""DPO under every engine configuration through the recipes; measures the distance to plain PyTorch."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pipelines.commands import build_basis, train_dpo, train_npo
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainDpoConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.job import on_main, rank, world_size
from pipelines.engine import processes
from pipelines.tokens.pairs import as_token_rows
from pipelines.training.checkpoints.run_files import METRICS_FILE
from pipelines.training.metrics import read_metrics
from tests.distributed import worlds
from tests.distributed.equality_worker import CLIP, DECAY, ENGINES, EPS, REFRESH, ROWS, STEPS
from tests.distributed.ranks import forget_engine, write_findings
from tests.reference import plain

BETA = 0.2
# As in practice smaller than for SFT: the preference loss has smaller gradients, nearer to their rounding.
LR = 4e-5
OBJECTIVES = ("sft", "dpo", "sft-pairs")


def make_world(directory: Path) -> None:
    worlds.make_model(directory / "model")
    worlds.make_pairs(directory / "data", STEPS * ROWS, seed=1)
    for name, seed in (("alpha", 2), ("beta", 3)):
        worlds.make_data(directory / f"sft-{name}", 9, seed=seed)
        worlds.make_pairs(directory / f"pairs-{name}", 9, seed=seed)


def pools(directory: Path, objective: str) -> list[Path]:
    return [directory / f"{'sft' if objective == 'sft' else 'pairs'}-{name}" for name in ("alpha", "beta")]


def plain_weights(directory: Path, objective: str, space: str) -> dict[str, torch.Tensor]:
    model = directory / "model"
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    start = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    preference = partial(_preference, start)
    rows = {
        "sft": lambda pool: worlds.encoded(pool, model),
        "dpo": lambda pool: worlds.encoded_pairs(pool, model),
        "sft-pairs": lambda pool: as_token_rows(worlds.encoded_pairs(pool, model)),
    }[objective]
    plain.train(
        network,
        worlds.encoded_pairs(directory / "data", model),
        [rows(pool) for pool in pools(directory, objective)],
        steps=STEPS,
        rows_per_step=ROWS,
        lr=LR,
        weight_decay=DECAY,
        max_norm=CLIP,
        eps=EPS,
        refresh_every=REFRESH,
        space=space,
        loss=preference,
        reference_loss=preference if objective == "dpo" else plain.mean_token_loss,
    )
    return {name: p.detach() for name, p in network.named_parameters()}


def _preference(start: Any, model: Any, pairs: Any) -> torch.Tensor:
    return plain.mean_preference_loss(model, start, pairs, BETA)


def train(directory: Path, name: str, objective: str, space: str, engine: dict[str, Any]) -> dict[str, torch.Tensor]:
    config = TrainDpoConfig(
        model=str(directory / "model"),
        data=directory / "data",
        basis=directory / f"basis-{objective}",
        out=directory / f"{name}-{objective}-{space}",
        space=space,  # type: ignore[arg-type]
        refresh_every=REFRESH,
        precision="fp32",
        max_steps=STEPS,
        learning_rate=LR,
        weight_decay=DECAY,
        max_grad_norm=CLIP,
        schedule="constant",
        beta=BETA,
        batch_size=2,
        accumulation=ROWS // 2 // world_size(),
        log_every=1,
        trainer={"train_sampling_strategy": "sequential", "adam_epsilon": EPS},
        **engine,
    )
    return load_file(train_dpo.run(config).path / "model" / "model.safetensors")


def rewards_at_the_start(directory: Path) -> float:
    """The larger of both mean rewards at the first step, in bf16: 0 up to rounding, since nothing has moved yet."""
    config = TrainDpoConfig(
        model=str(directory / "model"), data=directory / "data", out=directory / "bf16" / "run", precision="bf16",
        max_steps=1, learning_rate=LR, beta=BETA, batch_size=2, accumulation=4, log_every=1, zero=2,
    )  # fmt: skip
    rows = read_metrics(train_dpo.run(config).path / METRICS_FILE)
    first = next(row for row in rows if "rewards/chosen" in row)
    return max(abs(first["rewards/chosen"]), abs(first["rewards/rejected"]))


def log_ratio_at_the_start(directory: Path) -> float:
    """The mean log-ratio of the tokens of a first step of forgetting, in bf16: 0 up to rounding."""
    config = TrainNpoConfig(
        model=str(directory / "model"), data=directory / "data", out=directory / "bf16-npo" / "run", precision="bf16",
        max_steps=1, batch_size=2, accumulation=4, log_every=1, zero=2,
    )  # fmt: skip
    rows = read_metrics(train_npo.run(config).path / METRICS_FILE)
    return abs(next(float(row["forget/log_ratio"]) for row in rows if "forget/log_ratio" in row))


def main(directory: Path) -> None:
    processes.start()
    torch.set_num_threads(1)
    on_main(lambda: make_world(directory))
    findings: dict[str, Any] = {}
    for objective in OBJECTIVES:
        build_basis.run(
            BuildBasisConfig(
                model=str(directory / "model"),
                reference=pools(directory, objective),
                objective=objective,  # type: ignore[arg-type]
                beta=BETA,
                out=directory / f"basis-{objective}",
                precision="fp32",
                batch_size=3,
            )
        )
    cases = [(objective, "gradient") for objective in OBJECTIVES] + [("dpo", "update")]
    expected = {case: plain_weights(directory, *case) for case in cases}
    naive = plain_weights(directory, "sft", "none")
    findings["effect"] = min(
        max(float((weights[key] - naive[key]).abs().max()) for key in naive) for weights in expected.values()
    )
    alone = world_size() == 1
    names = ["alone, 4 micro-batches"] if alone else [name for name in ENGINES if name.startswith("zero")]
    for name in names:
        # Every engine with one objective of each kind; the pair objective differs from sft in its rows alone.
        for objective, space in cases if alone else [("sft", "gradient"), ("dpo", "gradient"), ("dpo", "update")]:
            forget_engine()
            saved = train(directory, name, objective, space, ENGINES[name])
            wanted = expected[(objective, space)]
            if rank() == 0:
                findings[f"{name}-{objective}-{space}"] = max(
                    float((saved[key] - wanted[key]).abs().max()) for key in wanted
                )
    if not alone:
        forget_engine()
        findings["start"] = rewards_at_the_start(directory)
        forget_engine()
        findings["start of forgetting"] = log_ratio_at_the_start(directory)
    if rank() == 0:
        findings["stored"] = len(list((directory / "reference-logps").iterdir()))
    write_findings(directory, findings)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
