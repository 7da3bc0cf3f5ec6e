"""Packing, replay, the held-out loss and odd rows under ZeRO, in one launch: what ranks computed and were given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from pipelines.commands import build_basis, train_dpo, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.core.job import on_main, rank, world_size
from pipelines.engine import processes
from pipelines.engine.deepspeed_config import deepspeed_config
from pipelines.models.reference import resolve_model
from pipelines.training import sft
from tests.distributed import odd_rows, worlds
from tests.distributed.ranks import forget_engine, write_findings

NUM_ROWS, LENGTH = 24, 80
ENGINES: dict[str, dict[str, Any]] = {"data parallel": {}, "zero2": {"zero": 2}, "zero3": {"zero": 3}}
Steps = list[list[list[int]]]


def make_world(directory: Path) -> None:
    worlds.make_model(directory / "model")
    worlds.make_model(directory / "noisy", dropout=0.1)
    worlds.make_data(directory / "data", NUM_ROWS, seed=1)
    worlds.make_pairs(directory / "pairs", 8, seed=4)
    worlds.make_pairs(directory / "held-out-pairs", 9, seed=5)
    for name, seed in (("alpha", 2), ("beta", 3)):
        worlds.make_data(directory / name, 9, seed=seed)


def config(directory: Path, out: str, **options: Any) -> TrainSftConfig:
    values: dict[str, Any] = {"precision": "fp32", "learning_rate": 1e-3, "schedule": "constant", "log_every": 1}
    values |= {"max_length": LENGTH, "trainer": {"adam_epsilon": 1e-3}, **options}
    values = {"model": str(directory / "model"), **values}
    return TrainSftConfig(data=directory / "data", out=directory / out, **values)


def packed_against_padded(directory: Path, space: str) -> dict[str, Any]:
    """Three steps on all rows at once, with a refresh between them, in both layouts."""
    from datasets import load_from_disk

    from pipelines.tokens.conversations import encode_dataset
    from pipelines.tokens.tokenizer import load_tokenizer
    from pipelines.training.data.packing import num_sequences

    rows = encode_dataset(load_from_disk(str(directory / "data")), load_tokenizer(directory / "model"), LENGTH)
    sequences = num_sequences(rows, LENGTH)
    assert sequences % world_size() == 0, sequences
    common: dict[str, Any] = {
        "basis": directory / "basis",
        "space": space,
        "refresh_every": 2,
        "max_steps": 3,
        "zero": 2,
    }
    layouts = {
        "packed": {"packing": True, "batch_size": 1, "accumulation": sequences // world_size()},
        "padded": {"batch_size": 4, "accumulation": NUM_ROWS // 4 // world_size()},
    }
    weights = {}
    for name, layout in layouts.items():
        forget_engine()
        path = train_sft.run(config(directory, f"{name}-{space}", **common, **layout)).path
        weights[name] = load_file(path / "model" / "model.safetensors")
    start = load_file(directory / "model" / "model.safetensors")
    return {
        "difference": max(float((weights["packed"][k] - weights["padded"][k]).abs().max()) for k in start),
        "change": max(float((weights["packed"][k] - start[k]).abs().max()) for k in start),
        "sequences": sequences,
    }


def rows_by_step(directory: Path, out: str, **options: Any) -> Steps:
    """The rows that the model is given in every optimizer step of a run with replay, over all ranks, sorted."""
    forget_engine()
    settings = config(
        directory, out, replay=directory / "alpha", replay_ratio=0.4, replay_mean="pooled", max_steps=5, **options
    )
    ds_config = deepspeed_config(settings, on_cpu=True)
    device = torch.device("cpu")
    settings.out.mkdir(exist_ok=True)
    trainer = sft.make_trainer(settings, resolve_model(settings.model), ds_config, settings.out, device)
    seen: list[tuple[int, list[int]]] = []

    def note(module: Any, arguments: Any) -> None:
        if module.training:
            seen.extend((trainer.state.global_step, [t for t in row if t != 0]) for row in arguments[0].tolist())

    trainer.model.get_input_embeddings().register_forward_pre_hook(note)
    trainer.train()
    everything: list[Any] = [seen]
    if world_size() > 1:
        everything = [None] * world_size()
        dist.all_gather_object(everything, seen)
    return [sorted(row for part in everything for step, row in part if step == number) for number in range(5)]


def held_out(directory: Path, name: str, engine: dict[str, Any]) -> dict[str, Any]:
    """Runs with and without a held-out loss; under ZeRO, also one that keeps the best weights."""
    common = {"model": str(directory / "noisy"), "basis": directory / "basis", "space": "update", "refresh_every": 2}
    common |= {"batch_size": 2, "accumulation": 2, "learning_rate": 1e-2, **engine}

    def run(which: str, **options: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any]]:
        forget_engine()
        result = train_sft.run(config(directory, f"{name}-{which}", **common, **options))
        metrics = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]
        return load_file(result.path / "model" / "model.safetensors"), metrics, result.manifest.summary

    def logged(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
        timed = ("train_", "total_flos", "epoch", "tokens_per_second")
        return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in metrics if "loss" in line]

    plain, plain_lines, _ = run("plain", max_steps=5)
    measured, measured_lines, _ = run("measured", max_steps=5, eval_data=directory / "alpha", eval_every=1)
    found = {
        "unequal": [key for key in plain if not torch.equal(plain[key], measured[key])],
        "log": logged(plain_lines) == logged(measured_lines),
        "losses": [line["eval_loss"] for line in measured_lines if "eval_loss" in line],
    }
    if not engine:
        return found
    watch: dict[str, Any] = {"eval_data": directory / "alpha", "eval_every": 1, "early_stopping": 2}
    best, best_lines, summary = run("best", max_steps=24, select="best", **watch)
    shorter, *_ = run("shorter", max_steps=summary["best_eval_step"])
    return found | {
        "best": summary,
        "best losses": [line["eval_loss"] for line in best_lines if "eval_loss" in line],
        "best unequal": [key for key in best if not torch.equal(best[key], shorter[key])],
    }


def held_out_pairs(directory: Path) -> list[float]:
    """The held-out losses of a DPO run whose held-out pairs are more on one rank than on the other."""
    forget_engine()
    config = TrainDpoConfig(
        model=str(directory / "model"),
        data=directory / "pairs",
        eval_data=directory / "held-out-pairs",
        out=directory / f"dpo-{world_size()}",
        eval_every=1,
        max_steps=2,
        precision="fp32",
        schedule="constant",
        learning_rate=1e-3,
        batch_size=4 // world_size(),
        accumulation=1,
        zero=3 if world_size() > 1 else None,
        trainer={"train_sampling_strategy": "sequential", "adam_epsilon": 1e-3},
    )
    lines = [json.loads(line) for line in (train_dpo.run(config).path / "metrics.jsonl").read_text().splitlines()]
    return [line["eval_loss"] for line in lines if "eval_loss" in line]


def main(directory: Path) -> None:
    processes.start()
    processes.start_deepspeed()
    torch.set_num_threads(1)
    on_main(lambda: make_world(directory))
    references = [directory / "alpha", directory / "beta"]
    build_basis.run(
        BuildBasisConfig(
            model=str(directory / "model"),
            reference=references,
            out=directory / "basis",
            precision="fp32",
            batch_size=3,
        )
    )
    findings: dict[str, Any] = {
        f"packing, {space}": packed_against_padded(directory, space) for space in ("gradient", "update")
    }
    findings["replay"] = rows_by_step(directory, "replay", batch_size=2, accumulation=2, zero=2)
    findings["held out"] = {name: held_out(directory, name, engine) for name, engine in ENGINES.items()}
    findings["held-out pairs"] = held_out_pairs(directory)
    findings["odd rows"] = odd_rows.apart_from_plain(directory)
    if rank() == 0:
        write_findings(directory, findings)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
