"""The names that other programs give to our options: those that mean exactly the same, and hints for the others.

The names are those of TRL, transformers, LLaMA-Factory and lm-eval. A name is listed in :data:`SAME` only where every
value means the same there as here, so that a command or file can be taken over; anything else is a hint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Meaning:
    """What a foreign name stands for.

    Attributes:
        field: the field that means the same.
        read: turns the foreign value, a text or what YAML made of it, into ours; ValueError where it cannot.
        beside: another field that a command must have for the name to mean this there; empty if none.
        is_switch: whether the name alone, without a value, is what others write on a command line.
    """

    field: str
    read: Callable[[Any], Any] | None = None
    beside: str = ""
    is_switch: bool = False


def _all_modules(value: Any) -> Any:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "all-linear" if value == "all" else value


def _precision(value: Any) -> str:
    if str(value).lower() != "true":
        raise ValueError("bf16 says how to compute only when it is on: write --precision fp32")
    return "bf16"


def _share(value: Any) -> Any:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    if number >= 1:
        raise ValueError(f"warmup_ratio is a share below 1, got {value}; --warmup-steps takes steps")
    return value


def _at_commas(value: Any) -> Any:
    return [word for word in value.split(",") if word] if isinstance(value, str) else value


SAME: Final[Mapping[str, Meaning]] = {
    **{
        other: Meaning(ours)
        for ours, others in {
            "model": ("model_name_or_path", "model_name", "model_path", "pretrained"),
            "out": ("output_dir", "output_path", "output"),
            "learning_rate": ("lr",),
            "epochs": ("num_train_epochs", "num_epochs"),
            "accumulation": ("gradient_accumulation_steps", "gradient_accumulation", "grad_accum"),
            "schedule": ("lr_scheduler_type", "lr_scheduler"),
            "max_length": ("cutoff_len", "max_seq_length", "max_seq_len"),
            "max_grad_norm": ("gradient_clipping",),
            "log_every": ("logging_steps",),
            "save_every": ("save_steps",),
            "keep": ("save_total_limit",),
            "eval_every": ("eval_steps",),
            "lora_rank": ("lora_r",),
            "beta": ("pref_beta", "dpo_beta"),
            "loss": ("loss_type",),
            "attention": ("attn_implementation",),
            "zero": ("zero_stage",),
            "num_procs": ("nproc_per_node",),
            "source": ("dataset", "dataset_name"),
            "subset": ("dataset_config", "dataset_config_name"),
            "source_split": ("dataset_train_split",),
            "tokenizer": ("tokenizer_name", "tokenizer_name_or_path"),
            "num_workers": ("preprocessing_num_workers", "dataset_num_proc", "num_proc"),
            "shots": ("num_fewshot",),
            "task_dir": ("include_path",),
        }.items()
        for other in others
    },
    "per_device_train_batch_size": Meaning("batch_size", beside="learning_rate"),
    "micro_batch_size": Meaning("batch_size", beside="learning_rate"),
    "data_weights": Meaning("weights", beside="data"),
    "model_revision": Meaning("revision", beside="model"),
    "lora_target": Meaning("lora_targets", _all_modules),
    "lora_target_modules": Meaning("lora_targets", _all_modules),
    "bf16": Meaning("precision", _precision, is_switch=True),
    "warmup_ratio": Meaning("warmup_steps", _share),
    "apply_chat_template": Meaning("chat_prompts", is_switch=True),
    "tasks": Meaning("task", _at_commas),
}
"""Foreign names that mean exactly what an option of ours means."""

_PREPARED = "train on prepared data:  ogpsa prepare-data SOURCE --out DATA, then --data DATA"
_ADAPTERS = "--lora-rank N trains adapters; without it all parameters are trained"
_WEIGHTS = "weights are loaded in full precision; --precision says how to compute"
HINTS: Final[Mapping[str, str]] = {
    "dataset": _PREPARED,
    "dataset_name": _PREPARED,
    "dataset_dir": "prepare-data --registry FILE reads a dataset_info.json",
    "train_file": _PREPARED,
    "dataset_text_field": "name columns where data are prepared:  ogpsa prepare-data --set columns.KEY=COLUMN",
    "eval_dataset": "--eval-data DATA takes a prepared data set",
    "val_size": "--eval-split SHARE holds rows out",
    "max_samples": "prepare-data --num-samples N draws rows",
    "interleave_probs": "give --data several times, with --weights",
    "mix_strategy": "give --data several times, with --weights",
    "template": "the tokenizer's own chat template is used; --chat-template FILE gives another",
    "finetuning_type": _ADAPTERS,
    "use_peft": _ADAPTERS,
    "adapter_name_or_path": "MODEL may be an adapter; training goes on with it",
    "stage": "leave it out: the command says it, train-sft, train-dpo or train-npo",
    "do_train": "leave it out: the command trains",
    "do_eval": "--eval-data DATA or --eval-split SHARE measures a held-out loss",
    "eval_strategy": "--eval-every N, with --eval-data or --eval-split",
    "evaluation_strategy": "--eval-every N, with --eval-data or --eval-split",
    "save_strategy": "--save-every N",
    "load_best_model_at_end": "--select best, with --eval-data or --eval-split",
    "overwrite_output_dir": "--overwrite replaces a finished artifact; an unfinished run is resumed",
    "resume_from_checkpoint": "the same command resumes by itself; --no-resume starts over",
    "pref_loss": "--loss takes the names of TRL's DPO trainer",
    "ref_model": "DPO's reference is the model that training starts from",
    "fp16": "--precision bf16 or --precision fp32",
    "pure_bf16": f"not offered: {_WEIGHTS}",
    "dtype": _WEIGHTS,
    "torch_dtype": _WEIGHTS,
    "load_in_4bit": f"of training and build-basis alone: {_WEIGHTS}",
    "load_in_8bit": f"not offered: {_WEIGHTS}",
    "quantization_bit": f"not offered: {_WEIGHTS}",
    "flash_attn": "--attention flash_attention_2, or --attention sdpa",
    "use_flash_attention_2": "--attention flash_attention_2",
    "train_batch_size": "--batch-size counts samples of one pass on one process; the whole batch is that, times "
    "--accumulation, times the processes",
    "per_device_eval_batch_size": "held-out rows are measured in batches of --batch-size",
    "warmup": "--warmup-steps takes steps, or a share below 1",
    "max_prompt_length": "--max-length cuts the whole sequence",
    "max_completion_length": "--max-length cuts the whole sequence",
    "num_processes": "--num-procs counts processes of this machine",
    "num_gpus": "--num-procs counts processes of this machine",
    "device": "CUDA_VISIBLE_DEVICES chooses devices",
    "wandb_project": "the environment variable WANDB_PROJECT, with --report-to wandb",
    "limit": "--num-samples N",
    "model_args": "give MODEL and the options of their own names",
    "gen_kwargs": "--temperature, --top-p and --max-new-tokens",
    "system_instruction": "--system TEXT",
    "system_prompt": "--system TEXT",
    "max_tokens": "--max-new-tokens N",
}
"""What to do instead of a foreign option that has no exact counterpart."""

_TRAINER: Final = frozenset(
    [
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "average_tokens_across_devices",
        "data_seed",
        "dataloader_drop_last",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataset_kwargs",
        "ddp_timeout",
        "discopop_tau",
        "eos_token",
        "f_alpha_divergence_coef",
        "f_divergence_type",
        "fsdp",
        "full_determinism",
        "group_by_length",
        "jit_mode_eval",
        "label_smoothing",
        "label_smoothing_factor",
        "liger_kernel_config",
        "logging_first_step",
        "logging_strategy",
        "loss_weights",
        "lr_scheduler_kwargs",
        "neftune_noise_alpha",
        "optim",
        "optim_args",
        "optim_target_modules",
        "padding_free",
        "run_name",
        "tf32",
        "torch_compile",
        "torch_empty_cache_steps",
        "use_liger_kernel",
        "use_weighting",
    ]
)


def snake(name: str) -> str:
    """A name as our fields are spelled: ``learning-rate`` and ``learningRate`` are ``learning_rate``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name.replace("-", "_")).lower()


def find(fields: Collection[str], name: str, *, foreign: bool = True) -> Meaning | None:
    """The field that a name stands for, however it is spelled; None where no field means exactly that.

    Args:
        fields: the names of the fields of a command.
        name: the name as it was written.
        foreign: whether the names of other programs, and other spellings of our own, are known here.
    """
    if name in fields:
        return Meaning(name)
    if not foreign:
        return None
    name = snake(name)
    if name in fields:
        return Meaning(name)
    found = SAME.get(name)
    if found is None or found.field not in fields or (found.beside and found.beside not in fields):
        return None
    return found


def hint(fields: Collection[str], name: str, *, foreign: bool = True) -> str | None:
    """What to do instead of an option that only other programs have; None where nothing is known.

    The arguments are those of :func:`find`.
    """
    name = snake(name)
    if not foreign:
        return None
    if name in _TRAINER and "trainer" in fields:
        return f"--set trainer.{name}=VALUE"
    found = HINTS.get(name)
    if found is None:
        return None
    # A hint is for commands that have one of the options that it names.
    named = [word.replace("-", "_") for word in re.findall(r"--([a-z][a-z-]*)", found)]
    has_one = any(word.removeprefix("no_") in fields for word in named)
    return found if has_one or not named else None


def translate(
    fields: Collection[str], values: Mapping[str, Any], *, foreign: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """Values under the names of fields, and the problems: options given twice, and values that mean nothing here.

    Names that no field answers to are kept, so that they are reported as unknown. ``fields`` and ``foreign`` are those
    of :func:`find`.
    """
    result: dict[str, Any] = {}
    problems: list[str] = []
    written: dict[str, str] = {}
    for name, value in values.items():
        meaning = find(fields, name, foreign=foreign)
        target = name if meaning is None else meaning.field
        if target in written:
            problems.append(f"option '{target}' is given twice: as '{written[target]}' and as '{name}'")
            continue
        written[target] = name
        try:
            result[target] = value if meaning is None or meaning.read is None else meaning.read(value)
        except ValueError as error:
            problems.append(f"option '{name}': {error}")
    return result, problems
