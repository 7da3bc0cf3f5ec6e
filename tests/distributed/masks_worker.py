"""Masked training under every engine, in one launch: against an optimizer over the chosen values alone, in one process.

The model's embeddings are tied; weights decay, gradients are accumulated and clipped, and shards are uneven.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from data_registry.core.manifest import read_manifest
from pipelines.commands import build_basis, build_mask, score_tokens, train_dpo, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.core.job import on_main, rank, world_size
from pipelines.engine import processes
from pipelines.masks.opening import open_mask
from pipelines.token_weights.opening import open_token_weights
from tests.distributed import worlds
from tests.distributed.equality_worker import CLIP, DECAY, ENGINES, EPS, LR, REFRESH, ROWS, STEPS
from tests.distributed.ranks import forget_engine, write_findings
from tests.reference import plain
from tests.reference.masked_plain import train_masked

BETA = 0.2
# Method, place, and space of the projection.
WAYS: dict[str, tuple[str, str, str | None]] = {
    "sft, update": ("sft", "update", None),
    "sft, gradient, basis": ("sft", "gradient", "gradient"),
    "sft, update, basis in update space": ("sft", "update", "update"),
    "dpo, gradient": ("dpo", "gradient", None),
}


class World:
    def __init__(self, directory: Path) -> None:
        self.directory, self.model, self.mask = directory, directory / "model", directory / "mask"
        self.data = {"sft": directory / "data", "dpo": directory / "pairs"}
        self.pools = [directory / "alpha", directory / "beta"]
        self.basis = directory / "basis"

    def make(self) -> None:
        worlds.make_model(self.model, tied=True)
        weights = load_file(self.model / "model.safetensors")
        for tensor in weights.values():
            # Zeros of both signs are bits too.
            tensor.view(-1)[::5] = torch.where(torch.arange(len(tensor.view(-1)[::5])) % 2 == 0, 0.0, -0.0)
        save_file(weights, self.model / "model.safetensors", metadata={"format": "pt"})
        worlds.make_data(self.data["sft"], STEPS * ROWS, seed=1)
        worlds.make_pairs(self.data["dpo"], STEPS * ROWS, seed=4)
        for seed, pool in enumerate(self.pools, start=2):
            worlds.make_data(pool, 9, seed=seed)

    def build(self) -> None:
        forget_engine()
        build_mask.run(
            BuildMaskConfig(
                model=str(self.model), score="random", ratio=0.3, seed=5, exclude=["model.norm.*"], out=self.mask
            )
        )
        build_basis.run(
            BuildBasisConfig(
                model=str(self.model), reference=self.pools, out=self.basis, precision="fp32", batch_size=3
            )
        )

    def chosen(self, mask: Path | None = None) -> dict[str, Tensor]:
        opened = open_mask(mask or self.mask)
        return {
            name: torch.from_numpy(opened.stored.flags(name, 0, torch.Size(shape).numel())).view(shape)
            for name, shape in opened.description.shapes.items()
        }

    def train(self, name: str, way: str, **options: Any) -> Path:
        forget_engine()
        method, place, space = WAYS[way]
        config_class: type[TrainConfig] = TrainSftConfig if method == "sft" else TrainDpoConfig
        if method == "dpo":
            options["beta"] = BETA
        if space is not None:
            options |= {"basis": self.basis, "space": space, "refresh_every": REFRESH}
        values: dict[str, Any] = {"precision": "fp32", "mask_at": place, "max_grad_norm": CLIP, **options}
        config = config_class(
            model=str(self.model),
            data=self.data[method],
            mask=self.mask,
            out=self.directory / f"{name}-{way}".replace(" ", "-").replace(",", ""),
            max_steps=STEPS,
            learning_rate=LR,
            weight_decay=DECAY,
            schedule="constant",
            batch_size=2,
            accumulation=ROWS // 2 // world_size(),
            log_every=3,
            trainer={"train_sampling_strategy": "sequential", "adam_epsilon": EPS},
            **values,
        )
        run = train_sft.run if method == "sft" else train_dpo.run
        path: Path = run(config).path
        return path

    def plain(self, way: str) -> dict[str, Tensor]:
        method, place, space = WAYS[way]
        network = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        start = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        encode = worlds.encoded if method == "sft" else worlds.encoded_pairs
        train_masked(
            network,
            encode(self.data[method], self.model),
            [worlds.encoded(pool, self.model) for pool in self.pools],
            self.chosen(),
            place=place,
            space=space,
            steps=STEPS,
            rows_per_step=ROWS,
            lr=LR,
            weight_decay=DECAY,
            max_norm=CLIP,
            eps=EPS,
            refresh_every=REFRESH,
            loss=plain.mean_token_loss if method == "sft" else partial(_preference, start),
        )
        return {name: p.detach() for name, p in network.named_parameters()}


def _preference(start: Any, model: Any, pairs: Any) -> Tensor:
    return plain.mean_preference_loss(model, start, pairs, BETA)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int16 if tensor.element_size() == 2 else torch.int32)


def weights_of(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "model.safetensors")


def promises(run: Path, start: dict[str, Tensor], chosen: dict[str, Tensor]) -> dict[str, Any]:
    """What a mask promises, found broken: by the saved weights, and what the summary says of it."""
    end, summary = weights_of(run), read_manifest(run).summary
    moved = {name: bits(end[name]) != bits(start[name].to(end[name].dtype)) for name in start}
    trained = sum(int(held.sum()) for held in chosen.values())
    return {
        "moved though frozen": [name for name in start if bool((moved[name] & ~chosen[name]).any())],
        "not moved": [
            name for name in start if bool(chosen[name].any()) and not bool((moved[name] & chosen[name]).any())
        ],
        "summary": [summary["frozen_identical"], summary["trained_weights"] == trained],
        "moved share": [summary["moved_share"], sum(int((m & chosen[n]).sum()) for n, m in moved.items()) / trained],
    }


def main(directory: Path) -> None:
    processes.start()
    torch.set_num_threads(1)
    world = World(directory)
    on_main(world.make)
    world.build()
    start, chosen = load_file(world.model / "model.safetensors"), world.chosen()
    expected = {way: world.plain(way) for way in WAYS}
    engines: dict[str, Any] = {"data parallel": {}}
    engines |= {name: values for name, values in ENGINES.items() if not name.startswith("alone")}
    findings: dict[str, Any] = {}
    for name, engine in engines.items():
        for way in WAYS:
            # Offloading differs where gradients and masters lie: one way in each place will do.
            if "offload" in name and way in ("sft, update", "dpo, gradient"):
                continue
            if name in ("zero0", "zero1") and way == "dpo, gradient":
                continue
            run = world.train(name, way, **engine)
            if rank() == 0:
                end = weights_of(run)
                found = promises(run, start, chosen)
                found["difference"] = max(float((end[n] - expected[way][n]).abs().max()) for n in start)
                findings[f"{name}, {way}"] = found
    findings |= in_bf16(world, start, chosen)
    findings |= without_clipping(world)
    findings |= scores(world)
    findings |= token_scores(world)
    if rank() == 0:
        findings["effect"] = min(
            float((weights[n] - start[n])[chosen[n]].abs().max())
            for weights in expected.values()
            for n in start
            if bool(chosen[n].any())
        )
    write_findings(directory, findings)


def in_bf16(world: World, start: dict[str, Tensor], chosen: dict[str, Tensor]) -> dict[str, Any]:
    findings = {}
    for stage in (0, 1, 2, 3):
        run = world.train(
            f"bf16 {stage}", "sft, update" if stage % 2 else "sft, gradient, basis", precision="bf16", zero=stage
        )
        if rank() == 0:
            rounded = {name: tensor.to(torch.bfloat16) for name, tensor in start.items()}
            findings[f"bf16 zero{stage}"] = promises(run, rounded, chosen)
    return findings


def without_clipping(world: World) -> dict[str, Any]:
    """Both places give the same bits; an anchor and a tracked change change nothing about what is frozen."""
    differing = {}
    for name, engine in {"data parallel": {}, "zero2": {"zero": 2}, "zero3": {"zero": 3}}.items():
        runs = [
            world.train(
                f"unclipped {name} {place}", "sft, update", mask_at=place, max_grad_norm=0.0, track_change=True,
                anchor=[world.pools[0]], anchor_kind="ce", anchor_ratio=0.25, **engine,
            )
            for place in ("update", "gradient")
        ]  # fmt: skip
        if rank() == 0:
            one, other = map(weights_of, runs)
            differing[name] = [key for key in one if not torch.equal(bits(one[key]), bits(other[key]))]
            differing[name] += [str(run) for run in runs if not read_manifest(run).summary["frozen_identical"]]
    return {"unclipped": differing} if rank() == 0 else {}


def scores(world: World) -> dict[str, Any]:
    """Masks from gradients hardly depend on the engine: weights at the threshold alone may change places."""
    found = {}
    for score in ("gradient", "fisher", "snip"):
        masks = []
        for name, engine in {"parallel": {}, "zero2": {"zero": 2}, "zero3": {"zero": 3}}.items():
            forget_engine()
            out = world.directory / f"mask-{score}-{name}"
            build_mask.run(
                BuildMaskConfig(
                    model=str(world.model), score=score, data=world.pools[0], num_samples=9, batch_size=4,
                    precision="fp32", ratio=0.1, out=out, **engine,
                )
            )  # fmt: skip
            masks.append(world.chosen(out) if rank() == 0 else {})
        if rank() == 0:
            found[score] = [
                sum(int((masks[0][n] != mask[n]).sum()) for n in mask) / sum(int(m.sum()) for m in mask.values())
                for mask in masks[1:]
            ]
            found[f"{score} by hand"] = by_hand(world, score, masks[0])
    return {"scores": found} if rank() == 0 else {}


def token_scores(world: World) -> dict[str, Any]:
    """How far log-probabilities of tokens are from those of one row at a time, under every engine."""
    found = {}
    for name, engine in {"parallel": {}, "zero2": {"zero": 2}, "zero3": {"zero": 3}}.items():
        forget_engine()
        out = world.directory / f"tokens-{name}"
        score_tokens.run(
            ScoreTokensConfig(
                model=str(world.model), data=world.data["dpo"], rule="logprob", batch_size=3, precision="fp32",
                out=out, **engine,
            )
        )  # fmt: skip
        if rank() == 0:
            network = AutoModelForCausalLM.from_pretrained(world.model, dtype=torch.float32)
            differences = []
            pairs = worlds.encoded_pairs(world.data["dpo"], world.model)
            for line, pair in zip(open_token_weights(out).table.to_pylist(), pairs, strict=True):
                ids, start = torch.tensor([[*pair["prompt_ids"], *pair["rejected_ids"]]]), len(pair["prompt_ids"])
                with torch.no_grad():
                    log_probs = network(ids).logits[0, start - 1 : -1].log_softmax(-1)
                alone = log_probs.gather(-1, ids[0, start:, None])[:, 0]
                differences.append(float((torch.tensor(line["score"]) - alone).abs().max()))
            found[name] = max(differences)
    return {"token scores": found} if rank() == 0 else {}


def by_hand(world: World, score: str, mask: dict[str, Tensor]) -> float:
    """The share of the mask that plain PyTorch does not choose."""
    network = AutoModelForCausalLM.from_pretrained(world.model, dtype=torch.float32)
    rows = worlds.encoded(world.pools[0], world.model)
    if score == "fisher":
        import random

        rows = [rows[i] for i in random.Random(0).sample(range(len(rows)), len(rows))]
        parts = [plain.gradient(network, rows[i : i + 4]) for i in range(0, len(rows), 4)]
        values = {name: torch.stack([part[name].square() for part in parts]).mean(0) for name in parts[0]}
    else:
        values = {name: g.abs() for name, g in plain.gradient(network, rows).items()}
    if score == "snip":
        values = {name: g * dict(network.named_parameters())[name].detach().abs() for name, g in values.items()}
    flat = torch.cat([values[name].flatten() for name in mask])
    wanted = torch.zeros(len(flat), dtype=torch.bool)
    wanted[flat.topk(len(flat) // 10).indices] = True
    return float((torch.cat([mask[name].flatten() for name in mask]) & ~wanted).sum() / wanted.sum())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
