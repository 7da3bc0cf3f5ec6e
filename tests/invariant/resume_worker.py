"""Stopped and resumed against never stopped, to the bit, for every engine and method, in one launch.

A run is stopped as a signal stops it: between steps, on all ranks at once. To go on, everything in memory is thrown
away and the command is called again, as a new process would.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file

from data_registry.core import stopping
from data_registry.core.errors import Preempted
from pipelines.commands import build_basis, build_mask, train_dpo, train_npo, train_sft
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.artifact import partial_path
from pipelines.core.job import gather, on_main, rank, world_size
from pipelines.engine import processes
from pipelines.token_weights.opening import answer_tokens
from pipelines.training import sft
from pipelines.training.checkpoints import storage
from pipelines.training.checkpoints.checkpointer import Checkpointer
from pipelines.training.checkpoints.engine_state import read_tensors
from pipelines.training.data import reference_log_probs
from tests.distributed import worlds
from tests.distributed.ranks import forget_engine, generators, write_findings
from tests.invariant import early_stops
from tests.invariant.asked_runs import asking, steps_asked, untimed
from tests.training.small_token_weights import store

# Epochs of four steps of eight samples, by default two.
SAMPLES, BATCH, EPOCH = 32, 8, 4
# As many steps, the last of one row alone, which leaves a rank and forward passes without any.
ODD = 25
CHOSEN = ("model_of_step", "stopped_early", "best_eval_step", "best_eval_loss")
MASK_FIGURES = ("frozen_identical", "moved_share", "trained_weights")
# Stopped within the first epoch, at its end, and within the second; refreshes come after steps 3 and 6.
WITHIN_FIRST, BETWEEN, WITHIN_SECOND = 2, 4, 5

SFT: dict[str, Any] = {"method": "sft", "space": "gradient"}
DPO: dict[str, Any] = {"method": "dpo", "space": "gradient"}
NPO: dict[str, Any] = {"method": "npo", "space": "gradient", "retain_weight": 0.5}
LORA: dict[str, Any] = {"lora_rank": 4, "lora_dropout": 0.1}
# All transforms at once.
ALL: dict[str, Any] = {"track_change": True, "freeze": ["norms"], "momentum": "reproject", "scope": "layer"}
ALL_IN_UPDATE: dict[str, Any] = {**ALL, "space": "update", "momentum": "keep"}
ALL_LORA: dict[str, Any] = {**LORA, **ALL, "freeze": ["*layers.0*"], "scope": "global"}
# The first interval is five steps long, and the others follow from how far the rows turned in the last.
TURNING: dict[str, Any] = {"refresh_every": "auto", "max_drift": 5.0, "epochs": 3.0}
# A mask at the place that goes with the space of the projection.
MASKED: dict[str, Any] = {"mask_at": "gradient"}
MASKED_UPDATE: dict[str, Any] = {"mask_at": "update"}
ODD_ROWS: dict[str, Any] = {"rows": "odd-"}
# Weights of tokens: on rows that leave ranks without any, whose stand-ins weigh nothing.
WEIGHED: dict[str, Any] = {"token_weights": "rejected", "rejected_tokens": 0.3}
WEIGHED_ROWS: dict[str, Any] = {"token_weights": "answer", "normalise": "weight"}
GROUPED: dict[str, Any] = {"trainer": {"train_sampling_strategy": "group_by_length"}}
# Every step is measured: rising losses end the run long before its last step, and the best weights are older. Where
# they rise from the first step on, it still goes beyond the steps at which it is stopped.
HELD_OUT: dict[str, Any] = {
    "eval_every": 1,
    "early_stopping": 4,
    "select": "best",
    "learning_rate": 1e-2,
    "epochs": 8.0,
}
# Engine and method, and where it is stopped: after so many steps since the last stop, or within the next refresh.
IN_REFRESH = -2
TWO_RANKS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "sft data parallel, bf16": ({**SFT, "precision": "bf16"}, (WITHIN_SECOND,)),
    "sft zero0 bf16, update space": (
        {**SFT, **MASKED, "zero": 0, "precision": "bf16", "space": "update"},
        (WITHIN_FIRST,),
    ),
    "sft zero0 lora": (
        {**SFT, **LORA, **ODD_ROWS, "replay_ratio": 0.2, "replay_mean": "pooled", "zero": 0},
        (WITHIN_SECOND,),
    ),
    "sft zero2": ({**SFT, **ALL, **MASKED, "zero": 2}, (WITHIN_FIRST, IN_REFRESH, 4)),
    "sft zero2 offload, update space": (
        {**SFT, **ALL_IN_UPDATE, **MASKED_UPDATE, "zero": 2, "offload": True},
        (WITHIN_SECOND,),
    ),
    "sft zero2 lora": ({**SFT, **LORA, **ODD_ROWS, **WEIGHED_ROWS, **GROUPED, "zero": 2}, (WITHIN_SECOND,)),
    "sft zero3 bf16, update space": (
        {**SFT, **ALL_IN_UPDATE, **TURNING, "zero": 3, "precision": "bf16"},
        (BETWEEN, IN_REFRESH),
    ),
    "sft zero3 lora": ({**SFT, **ALL_LORA, "zero": 3}, (WITHIN_SECOND,)),
    "sft zero3, held out": ({**SFT, **HELD_OUT, "zero": 3}, (WITHIN_FIRST, 1)),
    "dpo zero0": ({**DPO, **ALL, "zero": 0}, (WITHIN_SECOND,)),
    "dpo zero0 lora": ({**DPO, **LORA, **ODD_ROWS, **GROUPED, "zero": 0}, (WITHIN_SECOND,)),
    "dpo zero2": ({**DPO, "zero": 2, "space": "update"}, (WITHIN_FIRST,)),
    "dpo zero2 lora": ({**DPO, **LORA, **ODD_ROWS, **WEIGHED, "zero": 2}, (WITHIN_SECOND,)),
    "dpo zero2, held out": ({**DPO, **HELD_OUT, "zero": 2}, (WITHIN_FIRST, 1)),
    "dpo zero3": ({**DPO, "zero": 3}, (WITHIN_SECOND,)),
    "npo zero2": ({**NPO, **ODD_ROWS, **MASKED, "token_weights": "rejected", "zero": 2}, (WITHIN_FIRST, 2)),
    "dpo zero3 lora": ({**DPO, **ALL_LORA, "zero": 3}, (WITHIN_SECOND,)),
}
ALONE: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "sft": ({**SFT, **ALL, **MASKED}, (WITHIN_FIRST, 2, 3)),
    "sft, refreshed as it turns": ({**SFT, **TURNING, "space": "update"}, (WITHIN_SECOND, 2, IN_REFRESH)),
    "sft, no basis": ({**SFT, "basis": None}, (WITHIN_SECOND,)),
    "sft lora": ({**SFT, **ALL_LORA, "momentum": "keep", "space": "update"}, (WITHIN_SECOND,)),
    # A refresh where an epoch begins: the loader has drawn from the generators already.
    "dpo": ({**DPO, "space": "update", "refresh_every": 4, "epochs": 3.0}, (IN_REFRESH, 3)),
}


KINDS: dict[str, type[TrainConfig]] = {"sft": TrainSftConfig, "dpo": TrainDpoConfig, "npo": TrainNpoConfig}
RUNS: dict[str, Any] = {"sft": train_sft.run, "dpo": train_dpo.run, "npo": train_npo.run}


class World:
    def __init__(self, directory: Path, *, dropout: float = 0.1, made: bool = False) -> None:
        self.directory = directory
        self.model, self.sft, self.dpo = directory / "model", directory / "sft", directory / "dpo"
        self.pools, self.pairs = [directory / "alpha", directory / "beta"], [directory / "gamma"]
        if made:
            return
        worlds.make_model(self.model, dropout=dropout)
        worlds.make_data(self.sft, SAMPLES, seed=1)
        worlds.make_pairs(self.dpo, SAMPLES, seed=4)
        worlds.make_data(directory / "odd-sft", ODD, seed=6)
        worlds.make_pairs(directory / "odd-dpo", ODD, seed=7)
        for seed, pool in enumerate(self.pools, start=2):
            worlds.make_data(pool, 9, seed=seed)
        worlds.make_pairs(self.pairs[0], 9, seed=5)
        self.weigh()

    def weigh(self) -> None:
        """Weights for the odd rows, of which a third are 0."""
        generator = torch.Generator().manual_seed(8)
        rows = [answer_tokens(row["labels"]) for row in worlds.encoded(self.directory / "odd-sft", self.model)]
        pairs = [pair["rejected_ids"] for pair in worlds.encoded_pairs(self.directory / "odd-dpo", self.model)]
        for side, answers in (("answer", rows), ("rejected", pairs)):
            weights = [(torch.randint(-2, 5, (len(ids),), generator=generator) / 4).clamp(min=0) for ids in answers]
            lines = [(ids, row.tolist()) for ids, row in zip(answers, weights, strict=True)]
            store(self.directory / f"weights-{side}", {side: lines})

    def config(self, name: str, run: str, mode: dict[str, Any], **more: Any) -> TrainConfig:
        options = {
            "precision": "fp32",
            "max_length": 64,
            "accumulation": BATCH // 2 // world_size(),
            "refresh_every": 3,
            "epochs": 2.0,
            "learning_rate": 1e-3,
            **mode,
            **more,
        }
        method = options.pop("method")
        dpo = method != "sft"  # Both others read preference pairs.
        options.setdefault("basis", self.basis(options, dpo))
        if options["basis"] is None:
            del options["refresh_every"]
        if "mask_at" in options:
            options["mask"] = self.mask()
        if "token_weights" in options:
            options["token_weights"] = self.directory / f"weights-{options['token_weights']}"
        if "replay_ratio" in options:
            options["replay"] = self.pools[0]
        if "eval_every" in options:
            options["eval_data"] = self.pairs[0] if dpo else self.pools[0]
        return KINDS[method](
            model=str(self.model),
            data=self.directory / f"{options.pop('rows', '')}{'dpo' if dpo else 'sft'}",
            out=self.directory / name.replace(" ", "-").replace(",", "") / run,
            batch_size=2,
            weight_decay=0.1,
            # Three does not divide the steps at which runs are stopped: sums and refreshed figures are under way.
            log_every=3,
            save_every=0,
            **options,
        )

    def mask(self) -> Path:
        path = self.directory / "mask"
        if not path.exists():
            forget_engine()
            build_mask.run(BuildMaskConfig(model=str(self.model), score="random", ratio=0.3, out=path))
        return path

    def basis(self, options: dict[str, Any], dpo: bool) -> Path:
        lora = {"lora_rank": options["lora_rank"]} if "lora_rank" in options else {}
        path = self.directory / f"basis-{'dpo' if dpo else 'sft'}-{lora.get('lora_rank', 0)}"
        if not path.exists():
            forget_engine()
            build_basis.run(
                BuildBasisConfig(
                    model=str(self.model),
                    reference=self.pairs if dpo else self.pools,
                    out=path,
                    precision="fp32",
                    batch_size=3,
                    max_length=64,
                    **({"objective": "dpo"} if dpo else {}),
                    **lora,
                )
            )
        return path


def call(config: TrainConfig) -> Path:
    forget_engine()
    path: Path = RUNS[config.command.removeprefix("train-")](config).path
    return path


@contextlib.contextmanager
def asked_to_stop(after: int) -> Iterator[None]:
    """The last rank alone is asked to stop; the ranks have to agree. After steps, or in a batch of a refresh."""
    ask, count = processes.stop_requested, 0

    def stop_requested(device: torch.device) -> bool:
        nonlocal count
        count += 1
        asked = count == abs(after) and rank() == world_size() - 1
        with mock.patch.object(stopping, "requested", return_value="SIGTERM" if asked else None):
            return ask(device)

    def stop_point(device: torch.device) -> None:
        if after < 0 and stop_requested(device):
            raise Preempted("within a refresh")

    at_steps = stop_requested if after > 0 else lambda device: False
    with (
        mock.patch.object(processes, "stop_requested", at_steps),
        mock.patch.object(processes, "stop_point", stop_point),
    ):
        yield


def call_stopped(config: TrainConfig, *, after: int) -> str:
    with asked_to_stop(after):
        try:
            call(config)
        except Preempted as error:
            return f"{error.exit_code}: {error}"
    return "it was not stopped"


@contextlib.contextmanager
def last_state(into: dict[str, Any]) -> Iterator[None]:
    """Keeps what the optimizer held when the run was done, and where the generators stood."""
    real = sft.steps.save_run

    def save_run(trainer: Any, *args: Any) -> Any:
        _, _, optimizer = trainer.prepared_engine()
        masters = trainer.checkpointer._access.masters()
        owners = {id(master.owner): master.owner for master in masters}.values()
        into["state"] = [value.clone() for owner in owners for _, value in sorted(optimizer.state[owner].items())] + [
            owner.data.clone() for owner in owners
        ]
        into["random"] = generators()
        return real(trainer, *args)

    with mock.patch.object(sft.steps, "save_run", save_run):
        yield


def record(run: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    layers = run / "layers.parquet"
    weights: dict[str, torch.Tensor] = {}
    for file in (run / "model").glob("*.safetensors"):
        weights |= load_file(file)
    change: dict[str, torch.Tensor] = {}
    for file in (run / "change").glob("change-*.safetensors"):
        change |= load_file(file)
    return {
        "weights": weights,
        "change": change,
        "metrics": [untimed(line) for line in lines],
        "layers": layers.read_bytes() if layers.exists() else b"",
        "left": sorted(path.name for path in run.iterdir() if path.name.startswith(".")),
        "summary": json.loads((run / "manifest.json").read_text())["summary"],
    }


def differences(one: Whole, other: Whole) -> list[str]:
    (a, held_a), (b, held_b) = one, other
    found = [key for key in ("metrics", "layers") if a[key] != b[key]]
    found += [key for key in MASK_FIGURES if a["summary"].get(key) != b["summary"].get(key)]
    found += [name for name in a["weights"] if not torch.equal(a["weights"][name], b["weights"][name])]
    if a["change"].keys() != b["change"].keys() or any(
        not torch.equal(a["change"][name], b["change"][name]) for name in a["change"]
    ):
        found.append("change")
    same = len(held_a["state"]) == len(held_b["state"])
    if not same or not all(torch.equal(x, y) for x, y in zip(held_a["state"], held_b["state"], strict=True)):
        found.append("optimizer")
    if not torch.equal(held_a["random"], held_b["random"]):
        found.append("random state")
    return sorted({name for part in gather(found) for name in part})


Whole = tuple[dict[str, Any], dict[str, Any]]


def never_stopped(world: World, name: str, mode: dict[str, Any]) -> Whole:
    held: dict[str, Any] = {}
    with last_state(held):
        return record(call(world.config(name, "whole", mode))), held


def check_mode(world: World, name: str, mode: dict[str, Any], stops: tuple[int, ...], whole: Whole) -> dict[str, Any]:
    again: dict[str, Any] = {}
    config = world.config(name, "stopped", mode, **on_main(lambda: asking(world.directory, name)))
    said = [call_stopped(config, after=steps) for steps in stops]
    names = sorted(path.name for path in (partial_path(config.out, config) / storage.FOLDER).iterdir())
    with last_state(again), mock.patch.object(reference_log_probs, "_compute", _not_again):
        stopped = record(call(config))
    return {
        "differing": differences(whole, (stopped, again)),
        "said": said,
        "checkpoints": names,
        "steps asked": steps_asked(config.out),
        "left": stopped["left"],
        "epochs": mode.get("epochs", 2.0),
        "held out": [{key: run["summary"].get(key) for key in CHOSEN} for run in (whole[0], stopped)],
        "steps logged": [line["step"] for line in stopped["metrics"]],
        "refreshes logged": sum("projection/drift_degrees" in line for line in stopped["metrics"]),
    }


def _not_again(*_: Any, **__: Any) -> Any:
    raise AssertionError("reference log-probabilities are those of the starting model")


def broken(world: World, name: str, mode: dict[str, Any], whole: Whole) -> dict[str, list[str]]:
    """What is found when one thing at a time is not put back: the comparison must notice."""
    real = read_tensors

    def other_than(kept: str) -> Any:
        def read(source: Path, access: Any) -> dict[str, list[torch.Tensor]]:
            found = real(source, access)
            return {**found, kept: [tensor.flip(0) + 1 for tensor in found[kept]]}

        return mock.patch("pipelines.training.checkpoints.checkpointer.read_tensors", read)

    breakages = {
        "basis rows": other_than("projection.rows"),
        "starting weights": other_than("change.start"),
        "random state": mock.patch.object(Checkpointer, "load_random_state"),
    }
    found = {}
    for what, breakage in breakages.items():
        config = world.config(name, f"without-{what.replace(' ', '-')}", mode)
        call_stopped(config, after=WITHIN_SECOND)
        again: dict[str, Any] = {}
        with last_state(again), breakage:
            found[what] = differences(whole, (record(call(config)), again))
    return found


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def main(directory: Path, *only: str) -> None:
    processes.start()
    torch.set_num_threads(1)
    world = on_main(lambda: World(directory))
    findings: dict[str, Any] = {}
    modes = TWO_RANKS if world_size() > 1 else ALONE
    for name, (mode, stops) in modes.items():
        if only and name not in only:
            continue
        began = time.monotonic()
        whole = never_stopped(world, name, mode)
        findings[name] = check_mode(world, name, mode, stops, whole)
        findings[name]["seconds"] = round(time.monotonic() - began, 1)
        if name == "sft zero2":
            findings["broken on purpose"] = broken(world, name, mode, whole)
            place = on_main(lambda: _made(directory / "early"))
            findings["stopped in its basis"] = early_stops.stopped_in_basis(place, world.model, world.pools)
        if name == "dpo zero0":
            config = world.config("early dpo", "run", mode, refresh_every=0, momentum="keep")
            findings["stopped in reference log-probs"] = early_stops.stopped_in_reference_logps(
                config, call, directory / "dpo-zero0" / reference_log_probs.FOLDER
            )
        write_findings(directory, findings)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
