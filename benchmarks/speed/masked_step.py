"""What a mask costs a training step under ZeRO 2: ratios within one run, variants interleaved step by step.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.speed.masked_step --out benchmarks/speed/results

Variants, on the same engine and data: ``naive``; ``update``: frozen weights are put back after the optimizer's step;
``gradient``: their gradients are set to 0 before clipping. Beside whole steps, which differ from each other by more
than a mask costs, the work of the mask alone is timed within its steps.
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

import torch
import torch.distributed as dist

from benchmarks.bench import line as lines
from benchmarks.speed.projection_overhead import LENGTH, make_engine, samples
from pipelines.basis.objectives.tokens import token_loss_sum
from pipelines.engine import processes
from pipelines.engine.shards.opening import open_shards
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.masking import MaskedGradient, MaskedUpdate

VARIANTS = ("naive", "update", "gradient")


class Bench:
    """One engine on which steps of every variant can be made."""

    def __init__(self, micro_batches: int, num_layers: int, ratio: float) -> None:
        self.engine, self.micro_batches = make_engine("fp32", micro_batches, num_layers), micro_batches
        self.access = open_shards(self.engine.module, self.engine)
        generator = torch.Generator().manual_seed(dist.get_rank())
        frozen = [torch.rand(shard.numel, generator=generator) >= ratio for shard in self.access.shards]
        frozen = [held.to(self.access.rows_device()) for held in frozen]
        transforms = {
            "update": MaskedUpdate(self.access, frozen),
            "gradient": MaskedGradient(self.access, frozen, restores=False),
        }
        self.chains = {
            name: TransformChain(self.access, self.engine.basic_optimizer, [transform])
            for name, transform in transforms.items()
        }
        for chain in self.chains.values():
            chain.close()
            chain._reach_test = None
        self.masking: dict[str, list[float]] = {"update": [], "gradient": []}
        self.batches = samples(2 * micro_batches, 9)

    def step(self, variant: str) -> float:
        chain = self.chains.get(variant)
        optimizer, spent = self.engine.basic_optimizer, 0.0
        hooks: list[Any] = []

        def timed(work: Any) -> Any:
            def hook(*arguments: Any) -> None:
                nonlocal spent
                begun = _now()
                work(*arguments)
                spent += _now() - begun

            return hook

        if chain is not None:
            hooks = [
                optimizer.register_step_pre_hook(timed(chain._before_optimizer)),
                optimizer.register_step_post_hook(timed(chain._after_optimizer)),
            ]
        dist.barrier()
        started = _now()
        for index in range(self.micro_batches):
            part = self.batches[2 * index : 2 * index + 2]
            ids = torch.tensor([row["input_ids"] for row in part], device=self.access.device())
            self.engine.set_gradient_accumulation_boundary(index == self.micro_batches - 1)
            loss = token_loss_sum(self.engine, {"input_ids": ids, "labels": ids}) / (2 * LENGTH * self.micro_batches)
            self.engine.backward(loss, scale_wrt_gas=False)
        if chain is not None:
            timed(lambda: chain.at_boundary(measured=False))()
        self.engine.step()
        elapsed = _now() - started
        for hook in hooks:
            hook.remove()
        if chain is not None:
            self.masking[variant].append(spent)
        return elapsed


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(micro_batches: int, arguments: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(micro_batches, arguments.layers, arguments.ratio)
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for repeat in range(arguments.repeats + 1):
        for variant in VARIANTS:
            elapsed = bench.step(variant)
            if repeat > 0:
                times[variant].append(elapsed)
    naive = times["naive"]
    return {
        "micro_batches": micro_batches,
        "parameters": sum(bench.access.numels),
        "naive_step_s": statistics.median(naive),
        "ratios": {
            variant: statistics.median(t / n for t, n in zip(times[variant], naive, strict=True))
            for variant in VARIANTS
        },
        # Only what the mask does is timed, because whole steps differ from each other by more than it costs.
        "one_plus_share_of_the_mask": {
            variant: 1 + statistics.median(spent[1:]) / statistics.median(naive)
            for variant, spent in bench.masking.items()
        },
        "times_s": times,
        "mask_s": bench.masking,
    }


def table(row: dict[str, Any]) -> list[lines.Line]:
    """Whole masked steps beside those without a mask, which are the floor."""
    size = f"{row['parameters'] / 1e6:.0f} M, {row['micro_batches']} micro-batches"
    times = row["times_s"]
    return [
        lines.line(
            f"mask at {variant}, {size}", "whole step", "s", times[variant],
            floor=lines.Beside("step without", times["naive"]),
        )
        for variant in ("update", "gradient")
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--layers", type=int, default=7, help="7 layers are 30 million parameters")
    parser.add_argument("--ratio", type=float, default=0.05)
    parser.add_argument("--micro-batches", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--out", type=Path, default=None, help="directory for the raw results")
    lines.add_option(parser)
    arguments = parser.parse_args()
    processes.start()
    processes.start_deepspeed()
    torch.set_num_threads(1)
    load = os.getloadavg()
    rows = [measure(micro_batches, arguments) for micro_batches in arguments.micro_batches]
    if dist.get_rank() == 0:
        result = {
            "benchmark": "masked_step",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {dist.get_world_size()} ranks",
            "load_average_before": load,
            "load_average_after": os.getloadavg(),
            "options": {"layers": arguments.layers, "ratio": arguments.ratio, "repeats": arguments.repeats},
            "rows": rows,
        }
        for row in rows:
            print(json.dumps({key: value for key, value in row.items() if key not in ("times_s", "mask_s")}))
        lines.write(arguments.lines, [each for row in rows for each in table(row)])
        if arguments.out is not None:
            path = arguments.out / f"masked_step-{datetime.now(UTC).date()}.json"
            path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
