"""TRL's SFT trainer with projection under DeepSpeed's ZeRO, with the configuration that the commands use.

    ogpsa build-basis MODEL --reference REFERENCE --precision fp32 --out BASIS
    torchrun --nproc-per-node 2 examples/python/deepspeed_zero.py MODEL DATA --basis BASIS --out DIR

The weights are those of ``ogpsa train-sft --zero 2`` with as many processes, bit for bit.
"""

from __future__ import annotations

import torch
from trl_sft import parse, train

ZERO_2 = {
    "zero_optimization": {
        "stage": 2,
        "reduce_bucket_size": 5e8,
        "allgather_bucket_size": 5e8,
        "overlap_comm": False,
    },
    "bf16": {"enabled": False},
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}

if __name__ == "__main__":
    if not torch.cuda.is_available():
        import os

        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for line in train(parse(), deepspeed=ZERO_2, ddp_find_unused_parameters=False).state.log_history:
        print({name: value for name, value in line.items() if name.startswith(("step", "loss", "projection/"))})
