"""On two ranks: a loop of one's own under DDP, and TRL's trainer under DDP and ZeRO, each beside its command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import get_scheduler
from trl.trainer.utils import add_fused_lm_head

from pipelines import ProjectedOptimizer, build_basis
from pipelines.core.job import rank
from pipelines.engine import processes
from tests.api.worlds import REFRESH, STEPS, World, example, largest_difference
from tests.distributed.ranks import forget_engine, write_findings


def own_loop(world: World, space: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The plain loop under DDP: each rank has one of the two batches of a step. The weights, and the state's rows."""
    rows, plain_loop = example("rows"), example("plain_loop")
    model, tokenizer = world.load()
    add_fused_lm_head(model)
    # A batch for one rank alone: the other repeats one that does not count.
    basis = build_basis(model, world.batches(tokenizer))
    wrapped = DistributedDataParallel(model)
    groups = plain_loop.parameter_groups(model, 0.1)
    optimizer = ProjectedOptimizer(
        torch.optim.AdamW(groups, lr=3e-4), wrapped, basis, space=space, refresh_every=REFRESH, max_grad_norm=1.0
    )
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=STEPS)
    data = rows.read(world.root / "safety-sft", tokenizer)
    model.train()
    for step in range(STEPS):
        both = [rows.pad(data[8 * step + 4 * part :][:4], tokenizer.pad_token_id) for part in range(2)]
        num_tokens = sum((batch["labels"][:, 1:] != -100).sum() for batch in both)
        # DDP takes the mean over ranks.
        (2 * plain_loop.loss_of(wrapped, both[rank()], num_tokens, "trl")).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return {name: value.detach() for name, value in model.named_parameters()}, optimizer.state_dict()["projection"]


def agree(tensors: dict[str, torch.Tensor]) -> bool:
    """Whether the ranks have the same bits."""
    flat = torch.cat([tensor.flatten().view(torch.int32) for tensor in tensors.values()])
    other = [torch.empty_like(flat) for _ in range(2)]
    dist.all_gather(other, flat)
    return torch.equal(*other)


def from_command(found: dict[str, torch.Tensor], command: dict[str, torch.Tensor]) -> float:
    """The largest difference. Under DeepSpeed the trainer's own file has tied weights twice."""
    return largest_difference({name: found[name] for name in command}, command)


def main(directory: Path) -> None:
    processes.start()
    torch.set_num_threads(1)
    world = World(directory)
    trl_sft, deepspeed_zero = example("trl_sft"), example("deepspeed_zero")
    findings: dict[str, Any] = {}
    for space in ("gradient", "update"):
        weights, kept = own_loop(world, space)
        alone = torch.load(directory / f"alone-{space}.pt")
        findings[f"own loop, {space}"] = {
            "difference": largest_difference(weights, alone),
            "ranks agree": agree(weights) and agree(kept["rows"]),
        }
    engines: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "data parallel": ({}, {}),
        "zero2": ({"zero": 2}, {"deepspeed": deepspeed_zero.configuration(2)}),
        "zero3": ({"zero": 3}, {"deepspeed": deepspeed_zero.configuration(3)}),
    }
    for name, (options, arguments) in engines.items():
        forget_engine()
        command = world.command("update", accumulation=1, num_procs=2, **options)
        forget_engine()
        os.environ.pop("ACCELERATE_USE_CPU", None)
        more = ["--basis", str(world.basis), "--accumulation", "1", "--save-steps", "4"]
        quiet = {"disable_tqdm": True, "ddp_find_unused_parameters": False, **arguments}
        trainer = trl_sft.train(trl_sft.parse(world.words(name, "update", *more)), **quiet)
        assert trainer.is_deepspeed_enabled == ("deepspeed" in arguments)
        dist.barrier()
        findings[name] = from_command(world.weights(name), command)
        if name != "zero2":
            continue
        forget_engine()
        os.environ.pop("ACCELERATE_USE_CPU", None)
        more += ["--resume", str(directory / name / "checkpoint-4")]
        trl_sft.train(trl_sft.parse(world.words(f"{name}-resumed", "update", *more)), **quiet)
        dist.barrier()
        findings[f"{name}, resumed"] = from_command(world.weights(f"{name}-resumed"), command)
    write_findings(directory, findings)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
