"""Anchors under every engine, in one launch: against plain PyTorch, however a step is cut."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from data_registry.prepared import load_prepared
from pipelines.commands import build_basis, sample, train_dpo, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.sample import SampleConfig
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.core.job import on_main, rank, world_size
from pipelines.engine import processes
from pipelines.training.data.anchors import AnchorSchedule, rows_per_step
from tests.distributed import worlds
from tests.distributed.equality_worker import CLIP, DECAY, ENGINES, EPS, LR, REFRESH, ROWS, STEPS
from tests.distributed.ranks import forget_engine, write_findings
from tests.reference import plain

RATIO, WEIGHT, KEPT, SEED, BETA = 0.4, 0.7, 20, 5, 0.2
CASES = [("sft", "kl", ""), ("sft", "ce", ""), ("dpo", "kl", ""), ("sft", "kl", "update"), ("sft", "kl", "gradient")]


class World:
    def __init__(self, directory: Path) -> None:
        self.directory, self.model = directory, directory / "model"
        self.data = {"sft": directory / "data", "dpo": directory / "pairs"}
        self.pools = [directory / "alpha", directory / "beta"]
        self.samples = directory / "samples"

    def make(self) -> None:
        worlds.make_model(self.model)
        worlds.make_data(self.data["sft"], STEPS * ROWS, seed=1)
        worlds.make_pairs(self.data["dpo"], STEPS * ROWS, seed=4)
        for seed, pool in enumerate(self.pools, start=2):
            worlds.make_data(pool, 9, seed=seed)
        worlds.make_data(self.directory / "general", 7, seed=9)

    def sample(self) -> None:
        sample.run(
            SampleConfig(
                model=str(self.model), data=self.directory / "general", out=self.samples, max_new_tokens=9,
                log_probs=KEPT,
            )
        )  # fmt: skip

    def basis(self) -> Path:
        path = self.directory / "basis"
        forget_engine()
        build_basis.run(
            BuildBasisConfig(model=str(self.model), reference=self.pools, out=path, precision="fp32", batch_size=3)
        )
        return path

    def train(self, name: str, method: str, space: str, basis: Path | None, micro: int, **options: Any) -> Path:
        forget_engine()
        config_class: type[TrainConfig] = TrainSftConfig if method == "sft" else TrainDpoConfig
        if method == "dpo":
            options["beta"] = BETA
        if space:
            options |= {"basis": basis, "space": space, "refresh_every": REFRESH}
        config = config_class(
            model=str(self.model),
            data=self.data[method],
            out=self.directory / name.replace(" ", "-").replace(",", ""),
            precision="fp32",
            max_steps=STEPS,
            learning_rate=LR,
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            schedule="constant",
            batch_size=micro,
            accumulation=ROWS // micro // world_size(),
            log_every=3,
            seed=SEED,
            trainer={"train_sampling_strategy": "sequential", "adam_epsilon": EPS},
            **options,
        )
        run = train_sft.run if method == "sft" else train_dpo.run
        path: Path = run(config).path
        return path

    def anchor_rows(self) -> list[dict[str, list[int]]]:
        """The samples in tokens; where an answer was cut off, its end of turn is not counted."""
        rows = [dict(row) for row in worlds.encoded(self.samples, self.model)]
        for row, finish in zip(rows, load_prepared(self.samples)[0]["finish"], strict=True):
            last = max(index for index, label in enumerate(row["labels"]) if label != -100)
            row["labels"] = [
                -100 if index == last and finish == "length" else label for index, label in enumerate(row["labels"])
            ]
        return rows

    def plain(self, method: str, kind: str, space: str) -> dict[str, Tensor]:
        network = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        start = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        encode = worlds.encoded if method == "sft" else worlds.encoded_pairs
        own = plain.mean_token_loss if method == "sft" else partial(_preference, start)
        held = PlainAnchor(start, self.anchor_rows(), kind)
        plain.train(
            network,
            encode(self.data[method], self.model),
            [worlds.encoded(pool, self.model) for pool in self.pools] if space else [],
            steps=STEPS,
            rows_per_step=ROWS,
            lr=LR,
            weight_decay=DECAY,
            max_norm=CLIP,
            eps=EPS,
            refresh_every=REFRESH,
            space=space or "gradient",
            loss=lambda model, rows: own(model, rows) + WEIGHT * held(model),
        )
        return {name: p.detach() for name, p in network.named_parameters()}


class PlainAnchor:
    """The anchor's mean loss of one optimizer step after the other, row by row, with the starting model at hand."""

    def __init__(self, start: Any, rows: Sequence[Any], kind: str) -> None:
        self.start, self.rows, self.kind, self.step = start, rows, kind, 0
        self.schedule = AnchorSchedule(len(rows), rows_per_step(ROWS, RATIO), SEED)

    def __call__(self, model: Any) -> Tensor:
        total, count = torch.zeros((), dtype=torch.float64), 0
        for number in self.schedule.step(self.step):
            row = self.rows[number]
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:])
            now = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            with torch.no_grad():
                before = self.start(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            for place in (labels != -100).nonzero().flatten().tolist():
                if self.kind == "ce":
                    total = total - now[place, labels[place]]
                else:
                    total = total + _divergence(before[place], now[place])
                count += 1
        self.step += 1
        return (total / count).float()


def _divergence(before: Tensor, now: Tensor) -> Tensor:
    order = before.argsort(descending=True)
    top, rest = order[:KEPT], order[KEPT:]
    p, q = before.exp(), now.exp()
    bucket = p[rest].sum() * (p[rest].sum() / q[rest].sum()).log()
    return (p[top] * (before[top] - now[top])).sum() + bucket


def _preference(start: Any, model: Any, pairs: Any) -> Tensor:
    return plain.mean_preference_loss(model, start, pairs, BETA)


def weights_of(run: Path, file: str = "model.safetensors") -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(run / "model" / file)
    return found


def distance(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    return max(float((weights[key] - wanted[key]).abs().max()) for key in wanted)


def main(directory: Path) -> None:
    processes.start()
    torch.set_num_threads(1)
    world = World(directory)
    on_main(world.make)
    world.sample()
    basis = world.basis()
    alone = world_size() == 1
    engines = {
        name: dict(ENGINES[name]) for name in ENGINES if name.startswith("alone") == alone and "offload" not in name
    }
    if not alone:
        engines["data-parallel"] = {}
        engines["data-parallel, whole batch"] = {"micro": ROWS // 2}
    expected = {case: world.plain(*case) for case in CASES}
    findings: dict[str, Any] = {}
    for name, engine in engines.items():
        micro = engine.pop("micro", 2)
        for case in CASES:
            method, kind, space = case
            label = f"{name}, {method}, {kind}{', ' + space if space else ''}"
            run = world.train(
                label, method, space, basis, micro, anchor=world.samples, anchor_kind=kind, anchor_ratio=RATIO,
                anchor_weight=WEIGHT, **engine,
            )  # fmt: skip
            if rank() == 0:
                findings[label] = distance(weights_of(run), expected[case])
    naive = world.train("naive", "sft", "", None, 2)
    unweighted = world.train("unweighted", "sft", "", None, 2, anchor=world.samples, anchor_weight=0.0)
    if rank() == 0:
        findings["effect"] = min(distance(expected[case], weights_of(naive)) for case in CASES if case[0] == "sft")
        findings["weight 0"] = distance(weights_of(unweighted), weights_of(naive))
        findings["sampled rows"] = len(load_prepared(world.samples)[0])
    if not alone:
        findings |= with_adapters(world)
    write_findings(directory, findings)


def with_adapters(world: World) -> dict[str, float]:
    """LoRA: the same run under data parallelism and under ZeRO."""
    options = {"anchor": world.samples, "anchor_ratio": RATIO, "anchor_weight": WEIGHT, "lora_rank": 4}
    engines: dict[str, dict[str, Any]] = {"data-parallel": {}, "zero2": {"zero": 2}, "zero3": {"zero": 3}}
    runs = {
        name: world.train(f"lora-{name}", "sft", "", None, 2, **options, **engine) for name, engine in engines.items()
    }
    if rank() != 0:
        return {}
    first = weights_of(runs["data-parallel"], "adapter_model.safetensors")
    return {
        f"lora {name}": distance(weights_of(run, "adapter_model.safetensors"), first)
        for name, run in runs.items()
        if name != "data-parallel"
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
