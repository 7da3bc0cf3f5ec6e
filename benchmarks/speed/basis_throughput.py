"""Building a basis against plain forward and backward passes over the same samples, interleaved in one run.

    python -m benchmarks.speed.basis_throughput
    torchrun --standalone --nproc-per-node 2 -m benchmarks.speed.basis_throughput --zero 2

The floor is the plain passes themselves: a reference gradient cannot be had without them. Without DeepSpeed the plain
run is ``loss.backward()`` on the bare model; with it, ``engine.backward`` with accumulation over all batches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from benchmarks.bench import line as lines
from benchmarks.speed.projection_overhead import HIDDEN, LENGTH, VOCABULARY, make_model
from pipelines.basis.objectives.tokens import token_loss_sum
from pipelines.basis.references import ReferenceSet, objectives_for_rank
from pipelines.core.job import rank, world_size
from pipelines.engine import processes
from pipelines.passes.engine import reference_engine
from pipelines.passes.gradients import Objective, reference_gradients


def plain_passes(engine: Any, objectives: list[Objective], *, zero: bool) -> None:
    batches = [batch for objective in objectives for batch in objective.batches]
    device = engine.access.device()
    engine.access.module.train()
    for index, batch in enumerate(batches):
        loss = token_loss_sum(engine.forward, {key: value.to(device) for key, value in batch.items()})
        if zero:
            engine.forward.set_gradient_accumulation_boundary(index == len(batches) - 1)
            engine.forward.backward(loss, scale_wrt_gas=False)
        else:
            loss.backward()
    if zero:
        engine.access._discard()
    else:
        engine.access.module.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zero", type=int, choices=[2, 3], default=None)
    parser.add_argument("--samples", type=int, default=32, help="of each of two reference sets")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--layers", type=int, default=7, help="7 layers are 30 million parameters")
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--repeats", type=int, default=5)
    lines.add_option(parser)
    arguments = parser.parse_args()
    device = processes.start()
    torch.set_num_threads(1)
    config = None
    if arguments.zero is not None:
        processes.start_deepspeed()
        config = {
            "zero_optimization": {"stage": arguments.zero},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
    model = make_model(arguments.layers, arguments.hidden)
    engine = reference_engine(model, config, batch_size=arguments.batch_size, precision="fp32", device=device)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, VOCABULARY, (2, arguments.samples, LENGTH), generator=generator).tolist()
    references = [ReferenceSet(f"pool{j}", [{"input_ids": row, "labels": row} for row in rows[j]]) for j in range(2)]
    objectives = objectives_for_rank(
        references, batch_size=arguments.batch_size, pad_token_id=0, rank=rank(), world_size=world_size()
    )
    times: dict[str, list[float]] = {"plain": [], "basis": []}
    for repeat in range(arguments.repeats + 1):
        for name in times:
            started = _now()
            if name == "plain":
                plain_passes(engine, objectives, zero=arguments.zero is not None)
            else:
                reference_gradients(engine.access, engine.forward, token_loss_sum, objectives)
            if repeat > 0:
                times[name].append(_now() - started)
    if rank() == 0:
        ratios = [plain / basis for plain, basis in zip(times["plain"], times["basis"], strict=True)]
        print(
            f"plain passes {statistics.median(times['plain']):.2f} s, basis {statistics.median(times['basis']):.2f} s"
        )
        print(f"throughput relative to plain passes: {statistics.median(ratios):.3f} "
              f"({min(ratios):.3f} to {max(ratios):.3f})")  # fmt: skip
        name = f"building a basis, {sum(engine.access.numels) / 1e6:.0f} M"
        floor = lines.Beside("forward and backward alone", times["plain"])
        lines.write(arguments.lines, [lines.line(name, "all samples", "s", times["basis"], floor=floor)])


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
