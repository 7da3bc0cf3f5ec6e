"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import field_validator

from pipelines.core.config import CommandConfig, option

_LAYERS: Final = re.compile(r"all|(first|last):[1-9]\d{0,3}|\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")
Precision = Literal["fp32", "bf16"]
ZeroStage = Literal[0, 1, 2, 3]

COPIES_HELP = (
    "Processes to start on this machine, one copy of the model each; by default one per GPU, or one without GPUs. "
    "Ignored under torchrun and srun."
)
DROP_TOO_LONG_HELP = (
    "Leave out rows longer than --max-length or than the model's positions; otherwise the first are cut, and the "
    "second refused."
)


# What all libraries take that draw at random: NumPy refuses negative seeds, and its older generators longer ones.
MAX_SEED: Final = 2**32 - 1


def seed_option(default: int, description: str, **options: Any) -> Any:
    """The field of a seed: a whole number from 0 to ``MAX_SEED``; the arguments are those of ``option``."""
    return option(default, description, ge=0, le=MAX_SEED, **options)


class OutputConfig(CommandConfig):
    """Where a command writes, and how it runs."""

    out: Path = option(..., "Directory of the artifact to make.", panel="Output", runtime=True, short="o")
    overwrite: bool = option(
        False, "Replace a finished artifact that was made with other settings.", panel="Output", runtime=True
    )
    dry_run: bool = option(False, "Show the resolved options and the plan, then stop.", panel="Output", runtime=True)


class EngineConfig(CommandConfig):
    """How the model is loaded and spread over processes."""

    num_procs: int | None = option(
        None,
        "Processes to start on this machine; by default one per GPU, or one without GPUs. "
        "Ignored under torchrun and srun.",
        panel="Processes",
        runtime=True,
        ge=1,
    )
    zero: ZeroStage | None = option(
        None,
        "DeepSpeed ZeRO stage, 0 to 3. By default none: a single process, or plain data parallelism.",
        panel="Processes",
    )
    offload: bool = option(False, "Keep optimizer state in CPU memory.", panel="Processes", needs="zero=2 or zero=3")
    deepspeed: Path | None = option(
        None, "A DeepSpeed JSON file of your own, instead of --zero and --offload.", panel="Processes", runtime=True
    )
    precision: Precision = option("bf16", "Arithmetic: bf16 (master weights stay fp32) or fp32.", panel="Model")
    attention: str | None = option(
        None, "Attention implementation for transformers, such as sdpa or flash_attention_2.", panel="Model"
    )
    revision: str | None = option(None, "Revision of a model on the hub.", panel="Model", runtime=True)
    trust_remote_code: bool = option(
        False, "Run Python code that the model's repository brings. Noted in the manifest.", panel="Model"
    )
    gradient_checkpointing: bool = option(
        False,
        "Recompute activations in the backward pass: less memory, about a third more time.",
        panel="Model",
        runtime=True,
    )
    chat_template: Path | None = option(
        None,
        "Jinja chat template to use instead of the tokenizer's own; it is saved with the model.",
        panel="Model",
        runtime=True,
    )

    def problems(self) -> list[str]:
        """What contradicts each other among the options of the engine."""
        problems = [*super().problems()]
        if self.deepspeed is not None and self.zero is not None:
            problems.append("--deepspeed FILE already names the ZeRO stage; leave --zero out")
        if self.deepspeed is not None and self.offload:
            problems.append("--deepspeed FILE already says what is offloaded; leave --offload out")
        return problems


class LoraConfig(CommandConfig):
    """Low-rank adapters instead of full fine-tuning."""

    lora_rank: int = option(0, "Rank of LoRA adapters; 0 trains all parameters.", panel="LoRA", off=0, ge=0)
    lora_alpha: float | None = option(
        None, "LoRA scaling; twice the rank by default.", panel="LoRA", needs="lora_rank", gt=0
    )
    lora_targets: str = option(
        "all-linear",
        "Modules to adapt: all-linear, or names separated by commas (q_proj,v_proj).",
        panel="LoRA",
        needs="lora_rank",
    )
    lora_layers: str = option(
        "all",
        "Layers that get adapters: all, first:N, last:N, or numbers from 0 and ranges with commas (0-11,20).",
        panel="LoRA",
        needs="lora_rank",
        off="all",
    )
    load_in_4bit: bool = option(
        False,
        "Hold the frozen weights in four bits (QLoRA: nf4, quantised twice, computed in --precision). Needs a GPU with "
        "CUDA and pip install 'ogpsa[gpu]'.",
        panel="LoRA",
        needs="lora_rank",
    )

    @field_validator("lora_layers")
    @classmethod
    def _names_layers(cls, text: str) -> str:
        text = text.replace(" ", "")
        if not _LAYERS.fullmatch(text):
            raise ValueError(f"'{text}' names no layers: write all, first:N, last:N, or numbers such as 0-11,20")
        ranges = [part.partition("-") for part in text.split(",") if "-" in part]
        if any(int(first) > int(last) for first, _, last in ranges):
            raise ValueError(f"'{text}' has a range that ends before it begins")
        return text

    def problems(self) -> list[str]:
        """What contradicts each other among the options of adapters."""
        problems = [*super().problems()]
        if self.load_in_4bit and getattr(self, "zero", None) == 3:
            problems.append(
                "--load-in-4bit does not go with --zero 3, which would spread the packed weights over ranks: use "
                "--zero 2"
            )
        return problems


class TrainedLoraConfig(LoraConfig):
    """Adapters that are trained; the gradients of a basis are those of the stated loss, without dropout."""

    lora_dropout: float = option(0.0, "Dropout in the adapters.", panel="LoRA", needs="lora_rank", off=0.0, ge=0, lt=1)


PassThrough = dict[str, Any]


def split_numbers(value: Any) -> Any:
    """A list of what stands between commas, as on the command line; what pydantic should judge is left as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    if not isinstance(value, list):
        return value
    parts = [part for item in value for part in (item.split(",") if isinstance(item, str) else [item])]
    return [part.strip() if isinstance(part, str) else part for part in parts]
