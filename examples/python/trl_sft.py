"""TRL's SFT trainer with projection.

    python examples/python/trl_sft.py MODEL DATA REFERENCE [REFERENCE ...] --out DIR
    torchrun --nproc-per-node 2 examples/python/trl_sft.py MODEL DATA REFERENCE --out DIR

The data sets are those that ``ogpsa prepare-data`` writes. The weights are those of ``ogpsa train-sft``, bit for bit.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import datasets
import torch
from rows import read, reference_batches
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from pipelines import build_basis, projected


def train(options: argparse.Namespace, **arguments: Any) -> Any:
    """Train, save the model, and return the trainer; further arguments go to ``SFTConfig``."""
    # TRL's configuration comes first: under ZeRO 3 it says that models are loaded in parts.
    config = SFTConfig(
        output_dir=options.out,
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        weight_decay=options.weight_decay,
        max_grad_norm=1.0,
        optim="adamw_torch",
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        logging_steps=5,
        save_strategy="steps" if options.save_steps else "no",
        save_steps=options.save_steps or 500,
        max_length=None,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        **arguments,
    )
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    if options.basis is None:
        references = {Path(path).name: read(path, tokenizer) for path in options.reference}
        batches = {name: reference_batches(rows, tokenizer.pad_token_id) for name, rows in references.items()}
        basis = build_basis(model, batches)
    else:
        basis = options.basis
    trainer = projected(SFTTrainer)(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(read(options.data, tokenizer)),
        processing_class=tokenizer,
        basis=basis,
        space=options.space,
        refresh_every=options.refresh_every,
        # Both kinds of basis were computed at the weights that training starts from.
        refresh_at_start=False,
    )
    trainer.train(resume_from_checkpoint=options.resume)
    trainer.save_model(options.out)
    return trainer


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("reference", nargs="*")
    parser.add_argument("--basis", help="a basis from ogpsa build-basis, in the place of reference data")
    parser.add_argument("--out", required=True)
    parser.add_argument("--space", choices=("gradient", "update"), default="update")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--refresh-every", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--save-steps", type=int, default=0, help="write a checkpoint every so many steps")
    parser.add_argument("--resume", help="a checkpoint of the trainer to go on from")
    return parser.parse_args(words)


if __name__ == "__main__":
    trainer = train(parse())
    for line in trainer.state.log_history if trainer.is_world_process_zero() else ():
        print({name: value for name, value in line.items() if name.startswith(("step", "loss", "projection/"))})
