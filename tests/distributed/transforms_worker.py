"""Transforms together, under every engine, in one launch: against plain PyTorch, and against what they promise.

Every run freezes something, tracks its change and projects: with one subspace for each layer, or for all parameters
together; the gradient with its momentum re-projected, or the optimizer's change.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from data_registry.core.manifest import read_manifest
from pipelines.commands import build_basis, train_dpo, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.core.job import on_main, rank, world_size
from pipelines.engine import processes
from pipelines.training.checkpoints import storage
from pipelines.weights.pieces import PieceReader
from tests.distributed import worlds
from tests.distributed.equality_worker import CLIP, DECAY, ENGINES, EPS, LR, REFRESH, ROWS, STEPS
from tests.distributed.ranks import forget_engine, write_findings
from tests.reference import plain

# What the patterns stand for in this model, spelled out by hand.
NORMS = {
    "model.norm.weight",
    *(f"model.layers.{i}.{which}_layernorm.weight" for i in (0, 1) for which in ("input", "post_attention")),
}
FROZEN = {
    "norms,model.layers.0.mlp.*": NORMS
    | {f"model.layers.0.mlp.{which}_proj.weight" for which in ("gate", "up", "down")},
    "embeddings": {"model.embed_tokens.weight"},
}
WAYS: dict[str, dict[str, Any]] = {
    "gradient": {
        "space": "gradient", "momentum": "reproject", "scope": "layer", "freeze": ["norms", "model.layers.0.mlp.*"],
    },
    "update": {"space": "update", "momentum": "keep", "scope": "global", "freeze": ["embeddings"]},
    "update by layer": {"space": "update", "momentum": "keep", "scope": "layer", "freeze": ["embeddings"]},
}  # fmt: skip
BETA = 0.2


class World:
    def __init__(self, directory: Path) -> None:
        self.directory, self.model = directory, directory / "model"
        self.data = {"sft": directory / "data", "dpo": directory / "pairs"}
        self.pools = [directory / "alpha", directory / "beta"]

    def make(self) -> None:
        worlds.make_model(self.model)
        worlds.make_data(self.data["sft"], STEPS * ROWS, seed=1)
        worlds.make_pairs(self.data["dpo"], STEPS * ROWS, seed=4)
        for seed, pool in enumerate(self.pools, start=2):
            worlds.make_data(pool, 9, seed=seed)

    def basis(self, **lora: Any) -> Path:
        path = self.directory / f"basis{len(lora)}"
        forget_engine()
        build_basis.run(
            BuildBasisConfig(
                model=str(self.model), reference=self.pools, out=path, precision="fp32", batch_size=3, **lora
            )
        )
        return path

    def train(self, name: str, method: str, way: str, basis: Path, **options: Any) -> Path:
        forget_engine()
        config_class: type[TrainConfig] = TrainSftConfig if method == "sft" else TrainDpoConfig
        if method == "dpo":
            options["beta"] = BETA
        values: dict[str, Any] = {"precision": "fp32", "weight_decay": DECAY, **WAYS[way]}
        values = {"refresh_every": REFRESH, "max_steps": STEPS, **values, **options}
        config = config_class(
            model=str(self.model),
            data=self.data[method],
            basis=basis,
            out=self.directory / f"{name}-{method}-{way}".replace(" ", "-").replace(",", ""),
            learning_rate=LR,
            max_grad_norm=CLIP,
            schedule="constant",
            batch_size=2,
            accumulation=ROWS // 2 // world_size(),
            log_every=3,
            track_change=True,
            trainer={"train_sampling_strategy": "sequential", "adam_epsilon": EPS},
            **values,
        )
        run = train_sft.run if method == "sft" else train_dpo.run
        path: Path = run(config).path
        return path

    def plain(self, method: str, way: str) -> dict[str, Tensor]:
        network = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        start = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        encode = worlds.encoded if method == "sft" else worlds.encoded_pairs
        options = {key: WAYS[way][key] for key in ("space", "momentum", "scope")}
        plain.train(
            network,
            encode(self.data[method], self.model),
            [worlds.encoded(pool, self.model) for pool in self.pools],
            steps=STEPS,
            rows_per_step=ROWS,
            lr=LR,
            weight_decay=DECAY,
            max_norm=CLIP,
            eps=EPS,
            refresh_every=REFRESH,
            loss=plain.mean_token_loss if method == "sft" else partial(_preference, start),
            frozen=FROZEN[",".join(WAYS[way]["freeze"])],
            **options,
        )
        return {name: p.detach() for name, p in network.named_parameters()}


def _preference(start: Any, model: Any, pairs: Any) -> Tensor:
    return plain.mean_preference_loss(model, start, pairs, BETA)


def distance(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    return max(float((weights[key] - wanted[key]).abs().max()) for key in wanted)


def promises(run: Path, start: dict[str, Tensor], frozen: set[str]) -> dict[str, Any]:
    """What freezing and change tracking promise, found broken: empty lists where they hold."""
    end = weights_of(run)
    change = changes_of(run)
    summary = read_manifest(run).summary
    return {
        "moved though frozen": [
            n for n in frozen if not torch.equal(bits(start[n]), bits(end[n])) or bool(change[n].any())
        ],
        "not moved": [n for n in start if n not in frozen and not bool(change[n].any())],
        "not the change": [n for n in start if not _explains(start[n], end[n], change[n])],
        "summary": [summary["frozen_tensors"] - len(frozen), not summary["frozen_identical"]],
        "norm": summary["change_norm"]
        / float(torch.stack([row.double().square().sum() for row in change.values()]).sum().sqrt())
        - 1,
    }


def _explains(start: Tensor, end: Tensor, change: Tensor) -> bool:
    """Whether the saved weights are the start moved by the change, rounded as they are saved."""
    if end.dtype == torch.float32:
        return torch.equal((end - start).abs().flatten(), change)
    up, down = ((start.float().flatten() + sign * change).to(end.dtype) for sign in (1, -1))
    flat = end.flatten()
    return bool(((up == flat) | (down == flat)).all())


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int16 if tensor.element_size() == 2 else torch.int32)


def weights_of(run: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(run / "model" / "model.safetensors")
    return found


def changes_of(run: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted((run / "change").glob("change-*.safetensors")):
        found |= {name: rows[0] for name, rows in load_file(file).items()}
    return found


def main(directory: Path) -> None:
    processes.start()
    torch.set_num_threads(1)
    world = World(directory)
    on_main(world.make)
    basis = world.basis()
    start = load_file(world.model / "model.safetensors")
    engines = {name: ENGINES[name] for name in ENGINES if name.startswith("alone") == (world_size() == 1)}
    engines.pop("alone, whole batch", None)
    cases = [("sft", way) for way in WAYS] + [("dpo", "gradient"), ("dpo", "update by layer")]
    expected = {case: world.plain(*case) for case in cases}
    findings: dict[str, Any] = {}
    for name, engine in engines.items():
        for method, way in cases:
            # By layer and all together take the same way through an engine: each has one of them, for SFT.
            if method == "sft" and way == ("update" if "offload" in name else "update by layer"):
                continue
            run = world.train(name, method, way, basis, **engine)
            if rank() == 0:
                frozen = FROZEN[",".join(WAYS[way]["freeze"])]
                finding = promises(run, start, frozen)
                finding["difference"] = distance(weights_of(run), expected[method, way])
                findings[f"{name}, {method}, {way}"] = finding
    if world_size() > 1:
        findings |= in_bf16(world, basis, start)
        findings |= with_adapters(world)
    naive = world.train("naive", "sft", "gradient", basis, freeze=[], strength=1e-9, momentum="keep")
    if rank() == 0:
        findings["effect"] = min(distance(weights, weights_of(naive)) for weights in expected.values())
    write_findings(directory, findings)


def in_bf16(world: World, basis: Path, start: dict[str, Tensor]) -> dict[str, Any]:
    """The change is that of the master weights: far smaller than the saved weights can show."""
    findings: dict[str, Any] = {}
    for stage in (0, 1, 2, 3):
        # Where DeepSpeed's stage 0 makes its optimizer, it decays the masters once: the change would begin there.
        decay = {"weight_decay": 0.0} if stage == 0 else {}
        run = world.train(f"bf16-{stage}", "sft", "update", basis, precision="bf16", zero=stage, **decay)
        if rank() == 0:
            rounded = {name: tensor.to(torch.bfloat16) for name, tensor in start.items()}
            findings[f"bf16 zero{stage}"] = promises(run, rounded, FROZEN["embeddings"])
            end = weights_of(run)
            still = {name: (end[name] == rounded[name]).flatten() & (row != 0) for name, row in changes_of(run).items()}
            findings[f"bf16 zero{stage}"]["seen in masters alone"] = int(sum(mask.sum() for mask in still.values()))
    not_of_masters = change_of_masters(world, basis, start)
    if rank() == 0:
        findings["bf16 zero2"]["not the masters' change"] = not_of_masters
    return findings


def change_of_masters(world: World, basis: Path, start: dict[str, Tensor]) -> list[str]:
    """Parameters whose tracked change differs from that of the masters in a checkpoint of a run that goes further.

    ZeRO's masters begin as the starting weights in bf16.
    """
    last = STEPS - 1
    options: dict[str, Any] = {"precision": "bf16", "zero": 2}
    with mock.patch.object(storage, "remove_all", return_value=None):
        further = world.train("bf16-further", "sft", "update", basis, save_every=last, **options)
    run = world.train("bf16-till-there", "sft", "update", basis, max_steps=last, **options)
    if rank() != 0:
        return []
    with PieceReader(further / storage.FOLDER / storage.name_of(last)) as reader:
        masters = {name: reader.read("weights", name, 0, weight.numel()) for name, weight in start.items()}
    begun = {name: weight.to(torch.bfloat16).float().flatten() for name, weight in start.items()}
    changes = changes_of(run)
    return [n for n in start if not torch.equal((masters[n] - begun[n]).abs(), changes[n])]


def with_adapters(world: World) -> dict[str, Any]:
    """LoRA: the same run under ZeRO and data parallel, one side of every adapter frozen."""
    lora = {"lora_rank": 4}
    # The interval after the first one follows from how far the rows turned, which every engine measures for itself.
    turning = {"refresh_every": "auto", "max_drift": 2.0, "max_steps": 10}
    basis = world.basis(**lora)
    saved = {}
    for name, engine in {"data-parallel": {}, "zero2": {"zero": 2}, "zero3": {"zero": 3}}.items():
        for way, more in (("gradient", {}), ("update by layer", turning)):
            saved[name, way] = world.train(
                f"lora-{name}", "sft", way, basis, freeze=["*.lora_A.*"], **{**lora, **engine, **more}
            )
    findings: dict[str, Any] = {}
    for (name, way), run in saved.items() if rank() == 0 else ():
        weights = load_file(run / "model" / "adapter_model.safetensors")
        other = load_file(saved["data-parallel", way] / "model" / "adapter_model.safetensors")
        moved = [key for key, row in changes_of(run).items() if bool(row.any())]
        findings[f"lora {name}, {way}"] = {
            "difference": distance(weights, other),
            "moved though frozen": [key for key in moved if "lora_A" in key],
            "not moved": [key for key in changes_of(run) if "lora_B" in key and key not in moved],
            "summary": [not read_manifest(run).summary["frozen_identical"]],
            "refreshes": read_manifest(run).summary["refreshes"],
        }
    return findings


if __name__ == "__main__":
    main(Path(sys.argv[1]))
