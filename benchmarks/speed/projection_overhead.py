"""What projection costs a training step: ratios within one run, variants interleaved step by step.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.speed.projection_overhead --out benchmarks/speed/results

Variants, on the same engine (ZeRO 2) and data: ``naive``; ``gradient`` and ``update`` projection; ``refresh``: gradient
projection with a refresh before the step (the price of one refresh, to be divided by its interval); ``hooks``: what the
original code does, a hook on every parameter that projects each micro-batch's gradient on each rank in the model's
dtype, with whole rows on every rank.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.bench import line as lines
from pipelines.basis.objectives.tokens import token_loss_sum
from pipelines.basis.references import ReferenceSet, objectives_for_rank
from pipelines.core.environment import package_versions
from pipelines.engine import processes
from pipelines.engine.shards.opening import open_shards
from pipelines.passes.log_probs import add_loss_head
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.projection import Projection, ProjectionSettings

VOCABULARY, LENGTH, ROWS = 8192, 64, 2
HIDDEN = 512
VARIANTS = ("naive", "gradient", "update", "refresh", "hooks")


def make_model(num_layers: int, hidden: int = HIDDEN) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=hidden * 11 // 4, num_hidden_layers=num_layers,
        num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    add_loss_head(model)
    return model


def make_engine(precision: str, micro_batches: int, num_layers: int, hidden: int = HIDDEN) -> Any:
    model = make_model(num_layers, hidden)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision == "bf16"},
    }
    if precision == "bf16":
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]


def samples(count: int, seed: int, length: int = LENGTH) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(seed + 1000 * dist.get_rank())
    rows = torch.randint(0, VOCABULARY, (count, length), generator=generator).tolist()
    return [{"input_ids": row, "labels": row} for row in rows]


class Bench:
    """One engine on which steps of every variant can be made."""

    def __init__(self, precision: str, micro_batches: int, arguments: argparse.Namespace) -> None:
        self.micro_batches, self.length = micro_batches, arguments.length
        self.engine = make_engine(precision, micro_batches, arguments.layers, arguments.hidden)
        self.access = open_shards(self.engine.module, self.engine)
        rows = [torch.randn(ROWS, shard.numel, device=self.access.device()) for shard in self.access.shards]
        references = [ReferenceSet(f"pool{j}", samples(arguments.reference, j, self.length)) for j in range(ROWS)]
        objectives = objectives_for_rank(
            references, batch_size=2, pad_token_id=0, rank=dist.get_rank(), world_size=dist.get_world_size()
        )
        self.projections = {
            space: Projection(
                ProjectionSettings(space, 0, False, 1.0),  # type: ignore[arg-type]
                self.access, rows, objectives, token_loss_sum,
            )
            for space in ("gradient", "update")
        }  # fmt: skip
        self.chains = {
            space: TransformChain(self.access, self.engine.basic_optimizer, [projection])
            for space, projection in self.projections.items()
        }
        for chain in self.chains.values():
            chain.close()
            chain._reach_test = None
        self.full_rows: dict[str, Tensor] = {}
        self.projecting: dict[str, list[float]] = {}
        self.batches = samples(2 * micro_batches, 9, self.length)

    def step(self, variant: str) -> float:
        chain = self.chains["update" if variant == "update" else "gradient"]
        hooks = self._install_hooks() if variant == "hooks" else []
        if variant == "update":
            optimizer = self.engine.basic_optimizer
            self.projecting.setdefault(variant, []).append(0.0)
            hooks += [
                optimizer.register_step_pre_hook(self._timed(chain._before_optimizer)),
                optimizer.register_step_post_hook(self._timed(chain._after_optimizer)),
            ]
        dist.barrier()
        started = self._now()
        if variant == "refresh":
            self.projections["gradient"].refresh(self.engine.basic_optimizer)
        for index in range(self.micro_batches):
            part = self.batches[2 * index : 2 * index + 2]
            ids = torch.tensor([row["input_ids"] for row in part], device=self.access.device())
            self.engine.set_gradient_accumulation_boundary(index == self.micro_batches - 1)
            loss = token_loss_sum(self.engine, {"input_ids": ids, "labels": ids})
            self.engine.backward(loss / (2 * self.length * self.micro_batches), scale_wrt_gas=False)
        if variant in ("gradient", "refresh", "update"):
            # The slower rank is waited for in every variant, sooner or later: that is not what projection costs.
            dist.barrier()
            begun = self._now()
            chain.at_boundary(measured=False)
            if variant != "update":
                self.projecting.setdefault(variant, []).append(self._now() - begun)
        self.engine.step()
        elapsed = self._now() - started
        for hook in hooks:
            hook.remove()
        return elapsed

    def _timed(self, hook: Any) -> Any:
        """A hook of the optimizer whose time goes to the last step of update space."""

        def timed(*arguments: Any) -> None:
            dist.barrier()
            begun = self._now()
            hook(*arguments)
            self.projecting["update"][-1] += self._now() - begun

        return timed

    def _install_hooks(self) -> list[Any]:
        hooks = []
        for name, parameter in self.engine.module.named_parameters():
            if name not in self.full_rows:
                rows = torch.randn(ROWS, parameter.numel(), device=parameter.device)
                self.full_rows[name] = torch.linalg.qr(rows.T).Q.T.contiguous().to(parameter.dtype)
            hooks.append(parameter.register_hook(_projecting(self.full_rows[name])))
        return hooks

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def _projecting(rows: Tensor) -> Any:
    def hook(grad: Tensor) -> Tensor:
        flat = grad.reshape(-1)
        return (flat - rows.T @ (rows @ flat)).view_as(grad)

    return hook


def measure(precision: str, micro_batches: int, arguments: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(precision, micro_batches, arguments)
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for repeat in range(arguments.repeats + 1):
        for variant in VARIANTS:
            elapsed = bench.step(variant)
            if repeat > 0:
                times[variant].append(elapsed)
    naive = times["naive"]
    numbers = sum(bench.access.numels)
    held = bench.projections["gradient"].projector.num_elements()
    return {
        "precision": precision,
        "micro_batches": micro_batches,
        "parameters": numbers,
        "naive_step_s": statistics.median(naive),
        "ratios": {
            variant: {
                "median": statistics.median(t / n for t, n in zip(times[variant], naive, strict=True)),
                "min": min(t / n for t, n in zip(times[variant], naive, strict=True)),
                "max": max(t / n for t, n in zip(times[variant], naive, strict=True)),
                "difference_of_medians_s": statistics.median(times[variant]) - statistics.median(naive),
            }
            for variant in VARIANTS
        },
        # Only the projection is timed, because whole steps differ from each other by more than it costs.
        "projection_share_of_step": statistics.median(bench.projecting["gradient"][1:]) / statistics.median(naive),
        "update_share_of_step": statistics.median(bench.projecting["update"][1:]) / statistics.median(naive),
        "times_s": times,
        "projecting_s": {variant: spent[1:] for variant, spent in bench.projecting.items()},
        "basis_bytes_per_rank": 4 * held,
        "basis_floor_bytes_per_rank": 4 * ROWS * numbers // dist.get_world_size(),
        "projection_floor_bytes_per_rank": (4 * 2 * (1 + ROWS) + 4) * numbers // dist.get_world_size(),
        "hooks_basis_bytes_per_rank": sum(rows.numel() * rows.element_size() for rows in bench.full_rows.values()),
    }


def table(result: dict[str, Any]) -> list[lines.Line]:
    """Whole steps beside those without projection (the floor) and those of the original code's manner (the peer)."""
    size = f"{result['parameters'] / 1e6:.0f} M, {result['precision']}, {result['micro_batches']} micro-batches"
    times, count = result["times_s"], len(result["times_s"]["naive"])
    floor, peer = lines.Beside("step without", times["naive"]), lines.Beside("hooks a micro-batch", times["hooks"])
    found = [
        lines.line(f"{space} space, {size}", "whole step", "s", times[space], peer=peer, floor=floor, against="floor")
        for space in ("gradient", "update")
    ]
    spent = {variant: values[-count:] for variant, values in result["projecting_s"].items()}
    for space in ("gradient", "update"):
        alone = [naive + own for naive, own in zip(times["naive"], spent[space], strict=True)]
        found.append(lines.line(f"{space} space, {size}", "step and projection alone", "s", alone, floor=floor))
    refresh = [with_it - naive for with_it, naive in zip(times["refresh"], times["gradient"], strict=True)]
    if min(refresh) > 0:
        step = lines.Beside("a step without", times["naive"])
        found.append(lines.line(f"a refresh, {size}", "by itself", "s", refresh, peer=step))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--layers", type=int, default=7, help="7 layers are 30 million parameters")
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="hidden size; 16 layers of 2048 are 0.9 billion")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens of a row")
    parser.add_argument("--reference", type=int, default=16, help="samples of each of the two reference sets")
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--micro-batches", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--out", type=Path, default=None, help="directory for the raw results")
    lines.add_option(parser)
    arguments = parser.parse_args()
    processes.start()
    processes.start_deepspeed()
    torch.set_num_threads(1)
    results = [measure(p, m, arguments) for p in arguments.precision for m in arguments.micro_batches]
    if dist.get_rank() != 0:
        return
    for result in results:
        print(f"{result['parameters'] / 1e6:.1f} M parameters, {result['precision']}, "
              f"{result['micro_batches']} micro-batches, naive step {result['naive_step_s']:.2f} s")  # fmt: skip
        for variant, ratio in result["ratios"].items():
            print(f"  {variant:10s} {ratio['median']:.3f}  ({ratio['min']:.3f} to {ratio['max']:.3f})")
        print(f"  projecting the gradient takes {100 * result['projection_share_of_step']:.1f} % of the naive step, "
              f"the optimizer's change {100 * result['update_share_of_step']:.1f} %")  # fmt: skip
        print(f"  basis per rank {result['basis_bytes_per_rank'] / 2**20:.1f} MiB, "
              f"floor {result['basis_floor_bytes_per_rank'] / 2**20:.1f} MiB, "
              f"with hooks {result['hooks_basis_bytes_per_rank'] / 2**20:.1f} MiB")  # fmt: skip
    lines.write(arguments.lines, [each for result in results for each in table(result)])
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "ranks": dist.get_world_size(),
        }
        date = datetime.now(UTC).date().isoformat()
        record = {"date": date, "machine": machine, "packages": package_versions(), "results": results}
        path = arguments.out / f"projection_overhead-{date}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
