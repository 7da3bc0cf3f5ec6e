"""A training loop of one's own with projection: plain PyTorch, one process.

    python examples/python/plain_loop.py MODEL DATA REFERENCE [REFERENCE ...] --out DIR

The data sets are those that ``ogpsa prepare-data`` writes. With ``--head trl`` the loss is computed as TRL's trainer
does, and the weights are those of ``ogpsa train-sft``, bit for bit; with ``--head own`` it is the model's own loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from rows import pad, read, reference_batches
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler
from trl.trainer.utils import add_fused_lm_head

from pipelines import ProjectedOptimizer, build_basis


def loss_of(model: Any, batch: dict[str, Tensor], num_tokens: Tensor, head: str) -> Tensor:
    """The part of a step's mean loss that comes from one of its batches."""
    if head == "own":
        return model(**batch, use_cache=False, num_items_in_batch=num_tokens).loss
    return -model(**batch, use_cache=False, fused_lm_head=True).log_probs.sum() / num_tokens


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices are decayed; biases and norms are not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]


def train(options: argparse.Namespace) -> dict[str, float]:
    """Train, save the model, and return the figures of the last step."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    if options.head == "trl":
        add_fused_lm_head(model)
    pad_id = tokenizer.pad_token_id
    rows = read(options.data, tokenizer)
    references = {Path(path).name: reference_batches(read(path, tokenizer), pad_id) for path in options.reference}

    basis = build_basis(model, references)
    print(basis, basis.losses)
    optimizer = ProjectedOptimizer(
        torch.optim.AdamW(parameter_groups(model, options.weight_decay), lr=options.learning_rate),
        model,
        basis,
        space=options.space,
        refresh_every=options.refresh_every,
        max_grad_norm=1.0,
    )
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=options.steps)

    model.train()
    size, accumulation = options.batch_size, options.accumulation
    for step in range(options.steps):
        start = step * size * accumulation
        batches = [pad(rows[start + size * part :][:size], pad_id) for part in range(accumulation)]
        num_tokens = torch.stack([(batch["labels"][:, 1:] != -100).sum() for batch in batches]).sum()
        for batch in batches:
            loss_of(model, batch, num_tokens, options.head).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    return optimizer.figures()


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("reference", nargs="+")
    parser.add_argument("--out", required=True)
    parser.add_argument("--space", choices=("gradient", "update"), default="update")
    parser.add_argument("--head", choices=("trl", "own"), default="trl")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--refresh-every", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    return parser.parse_args(words)


if __name__ == "__main__":
    for name, value in train(parse()).items():
        print(f"{name:40} {value:.6g}")
