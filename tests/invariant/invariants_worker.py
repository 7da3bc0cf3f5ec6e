"""Runs that must agree to the bit, and properties of every step, for every ZeRO stage, in one launch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import SFTTrainer

from data_registry.core.errors import EngineError
from pipelines.commands import build_basis
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.job import on_main, rank, world_size
from pipelines.engine import processes
from pipelines.engine.deepspeed_config import deepspeed_config
from pipelines.engine.shards.access import ShardAccess
from pipelines.models.reference import resolve_model
from pipelines.training import sft
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.projection import Projection
from tests.distributed import worlds
from tests.distributed.ranks import forget_engine, generators, write_findings

ENGINES: dict[str, dict[str, Any]] = {
    "zero0": {"zero": 0},
    "zero1": {"zero": 1},
    "zero2": {"zero": 2},
    "zero2-offload": {"zero": 2, "offload": True},
    "zero3": {"zero": 3},
}
STEPS = 4


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.model = worlds.make_model(directory / "model", dropout=0.1)
        self.data = worlds.make_data(directory / "data", 48, seed=1)
        self.pools = [worlds.make_data(directory / name, 11, seed=seed) for name, seed in (("alpha", 2), ("beta", 3))]
        self.basis = directory / "basis"

    def config(self, out: str, **options: Any) -> TrainSftConfig:
        values: dict[str, Any] = {
            "precision": "fp32",
            "max_steps": STEPS,
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "batch_size": 2,
            "accumulation": 2,
            "log_every": 1,
            # A change near zero drowns in the rounding of the weights that it is added to, whatever its direction.
            "schedule": "constant",
        }
        return TrainSftConfig(model=str(self.model), data=self.data, out=self.directory / out, **{**values, **options})


class Prober(TrainerCallback):
    """Keeps whole weights around every step, and losses."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.before, self.changes, self.losses = trainer, {}, [], []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before = whole_weights(self.trainer)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        after = whole_weights(self.trainer)
        self.changes.append({name: after[name].double() - self.before[name].double() for name in after})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.losses.append(logs.get("loss"))


def whole_weights(trainer: Any) -> dict[str, torch.Tensor]:
    import deepspeed

    model = trainer.accelerator.unwrap_model(trainer.model)
    parameters = list(model.parameters())
    sharded = any(hasattr(p, "ds_id") for p in parameters)
    with deepspeed.zero.GatheredParameters(parameters) if sharded else contextlib.nullcontext():
        return {name: p.detach().clone() for name, p in model.named_parameters()}


@contextlib.contextmanager
def plain_trl() -> Iterator[None]:
    """``make_trainer`` builds TRL's own class, with nothing of ours in it."""

    class Plain(SFTTrainer):
        make_chain = None
        transforms = None

        def install_transforms(self, make_chain: Any) -> None: ...

    ours = sft.ProjectedSFTTrainer
    sft.ProjectedSFTTrainer = Plain  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        sft.ProjectedSFTTrainer = ours  # type: ignore[misc]


def train(config: TrainSftConfig, prepare: Callable[[Any], None] = lambda trainer: None) -> tuple[Any, Prober]:
    forget_engine()
    directory = config.out
    directory.mkdir(parents=True, exist_ok=True)
    device = processes.start()
    ds_config = deepspeed_config(config, on_cpu=device.type == "cpu")
    if ds_config is not None:
        processes.start_deepspeed()
    trainer = sft.make_trainer(config, resolve_model(config.model), ds_config, directory, device)
    assert trainer.is_deepspeed_enabled == (ds_config is not None)
    prober = Prober(trainer)
    prepare(trainer)
    trainer.add_callback(prober)
    trainer.train()
    return trainer, prober


def fingerprint(trainer: Any, prober: Prober) -> dict[str, Any]:
    """Everything that a trace would show in: weights, optimizer state, losses, counters, RNG."""
    engine = getattr(getattr(trainer.accelerator, "deepspeed_engine_wrapped", None), "engine", None)
    optimizer = engine.basic_optimizer if engine is not None else trainer.optimizer.optimizer
    moments = [
        state[key].double().sum().item()
        for state in optimizer.state.values()
        for key in ("exp_avg", "exp_avg_sq")
        if key in state
    ]
    counters = [trainer.state.global_step]
    if engine is not None:
        counters += [engine.global_steps, engine.micro_steps, engine.global_samples]
    return {
        "weights": whole_weights(trainer),
        "moments": moments,
        "losses": prober.losses,
        "counters": counters,
        "rng": generators(),
    }


def unequal(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    found = [key for key in ("moments", "losses", "counters") if a[key] != b[key]]
    found += [name for name in a["weights"] if not torch.equal(a["weights"][name], b["weights"][name])]
    return found + ([] if torch.equal(a["rng"], b["rng"]) else ["rng"])


class ThrownAway(Projection):
    """Computes the rows before every step and uses nothing of it."""

    reads_gradient = False

    def on_gradient(self, gradients: Any, *, measured: bool) -> bool:
        return False

    def keeps_weights(self, shard: int, *, measured: bool) -> bool:
        return False

    def observes_change(self, *, measured: bool) -> bool:
        return False

    def refresh_due(self, step: int) -> bool:
        return True

    def refresh(self, optimizer: Any) -> None:
        assert all(bool(torch.isfinite(row).all()) for row in self.compute_rows().rows)

    def figures(self) -> dict[str, float]:
        return {}


def throw_away(trainer: Any) -> None:
    make = trainer.make_chain

    def thrown(model: Any, engine: Any, optimizer: Any) -> TransformChain:
        chain = make(model, engine, optimizer)
        (projection,) = chain.transforms
        projection.__class__ = ThrownAway
        chain.close()
        return TransformChain(chain.access, optimizer, [projection])

    trainer.make_chain = thrown


def share_of_basis(trainer: Any) -> dict[str, Any]:
    projection = trainer.transforms.get("projection")
    mine = projection.projector.num_elements()
    counts = [None] * world_size()
    dist.all_gather_object(counts, mine)
    return {"mine": counts, "whole": sum(projection.access.numels) * len(projection.names)}


def worst_leak(changes: list[dict[str, torch.Tensor]], basis: Path) -> float:
    """Largest |<b, dtheta>| / (|b| |dtheta|) over steps, tensors and rows, in float64 from whole weights."""
    rows: dict[str, torch.Tensor] = {}
    for file in sorted(basis.glob("basis-*.safetensors")):
        rows |= load_file(file)
    worst = 0.0
    for change in changes:
        for name, block in rows.items():
            delta = change[name].flatten()
            for row in block.double():
                scale = float(row.norm() * delta.norm())
                if delta.numel() > 8 and scale > 0:
                    worst = max(worst, abs(float(row @ delta)) / scale)
    return worst


class ClonedViews:
    """Breaks the views on purpose: edits then go to copies."""

    def __enter__(self) -> None:
        self._kept: dict[type, Any] = {}
        for cls in _subclasses(ShardAccess):
            if "gradients" in cls.__dict__:
                self._kept[cls] = cls.gradients
                cls.gradients = _cloned(cls.gradients)

    def __exit__(self, *ignored: object) -> None:
        for cls, method in self._kept.items():
            cls.gradients = method


def _cloned(method: Any) -> Any:
    return lambda self: [None if g is None else g.clone() for g in method(self)]


def _subclasses(cls: type) -> list[Any]:
    return [sub for direct in cls.__subclasses__() for sub in (direct, *_subclasses(direct))]


def check_engine(world: World, name: str, engine: dict[str, Any]) -> dict[str, Any]:
    finding: dict[str, Any] = {}
    plain = fingerprint(*train(world.config(f"{name}-plain", **engine)))
    with plain_trl():
        finding["no basis against TRL"] = unequal(plain, fingerprint(*train(world.config(f"{name}-trl", **engine))))
    options = {"basis": world.basis, "refresh_every": 1, **engine}
    thrown = fingerprint(*train(world.config(f"{name}-thrown", **options), throw_away))
    finding["refresh thrown away"] = unequal(plain, thrown)
    fixed = {**options, "refresh_every": 0}
    trainer, prober = train(world.config(f"{name}-update", space="update", **fixed))
    finding["update leak"] = worst_leak(prober.changes, world.basis)
    finding["share"] = share_of_basis(trainer) if world_size() > 1 else None
    with ClonedViews():
        try:
            train(world.config(f"{name}-broken", **fixed))
            finding["self-test"] = "silent"
        except EngineError as error:
            finding["self-test"] = str(error)
    return finding


def main(directory: Path) -> None:
    processes.start()
    torch.set_num_threads(1)
    world = on_main(lambda: World(directory))
    build_basis.run(
        BuildBasisConfig(model=str(world.model), reference=world.pools, out=world.basis, precision="fp32", batch_size=3)
    )
    engines = ENGINES if world_size() > 1 else {"alone": {}}
    findings = {}
    for name, engine in engines.items():
        findings[name] = check_engine(world, name, engine)
        if rank() == 0:
            write_findings(directory, findings)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
