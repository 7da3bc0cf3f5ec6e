"""TRL's SFT trainer with projection under DeepSpeed's ZeRO, with the configuration that the commands use.

    ogpsa build-basis MODEL --reference REFERENCE --precision fp32 --out BASIS
    torchrun --nproc-per-node 2 examples/python/deepspeed_zero.py MODEL DATA --basis BASIS --zero 2 --out DIR

The weights are those of ``ogpsa train-sft --zero 2`` with as many processes, bit for bit.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from trl_sft import parse, train


def configuration(stage: int) -> dict[str, Any]:
    """The DeepSpeed configuration of ``--zero STAGE`` in fp32; the trainer fills in what is ``"auto"``."""
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    else:
        zero |= {"reduce_bucket_size": 5e8, "allgather_bucket_size": 5e8}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": False},
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def main() -> None:
    """Join the other processes, train, and print the log."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--zero", type=int, choices=(1, 2, 3), default=2)
    options, words = own.parse_known_args()
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    # Before the configuration is read, which takes the number of processes from the group.
    deepspeed.init_distributed("nccl" if torch.cuda.is_available() else "gloo", auto_mpi_discovery=False)
    trainer = train(parse(words), deepspeed=configuration(options.zero), ddp_find_unused_parameters=False)
    for line in trainer.state.log_history if trainer.is_world_process_zero() else ():
        print({name: value for name, value in line.items() if name.startswith(("step", "loss", "projection/"))})


if __name__ == "__main__":
    main()
