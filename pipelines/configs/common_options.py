"""The one place that says which options of a command ``--help`` shows; ``--help-all`` shows every one.

Arguments and required options are always shown. An option that is not named here is not common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TRAINING: Final = (
    "preset", "basis", "space", "anchor", "eval_split", "epochs", "max_steps", "learning_rate", "batch_size",
    "accumulation", "max_length", "lora_rank", "seed", "num_procs", "zero", "precision", "overwrite", "dry_run",
)  # fmt: skip
COMMON: Final[Mapping[str, tuple[str, ...]]] = {
    "quickstart": ("out", "seed", "dry_run"),
    "doctor": ("as_json",),
    "import-model": ("dtype", "dry_run"),
    "prepare-data": (
        "out", "format", "task", "num_samples", "split", "tokenizer", "max_length", "drop_too_long", "preview", "list",
        "describe", "overwrite", "dry_run",
    ),
    "sample": ("num_samples", "answers", "max_new_tokens", "temperature", "log_probs", "grade", "overwrite", "dry_run"),
    "build-basis": (
        "objective", "num_samples", "max_length", "batch_size", "lora_rank", "num_procs", "zero", "precision",
        "overwrite", "dry_run",
    ),
    "build-mask": ("score", "change", "data", "ratio", "scope", "exclude", "num_procs", "overwrite", "dry_run"),
    "score-tokens": ("rule", "against", "map", "top", "side", "max_length", "num_procs", "overwrite", "dry_run"),
    "train-sft": (*_TRAINING, "packing", "replay"),
    "train-dpo": (*_TRAINING, "loss", "beta"),
    "train-npo": (*_TRAINING, "loss", "beta", "retain_weight"),
    "evaluate": (
        "out", "suite", "data", "harmful", "harmless", "num_samples", "name", "max_new_tokens", "judge", "baseline",
        "list_suites", "download_only", "num_procs", "overwrite", "dry_run",
    ),
    "judge": ("columns", "labels", "judge", "overwrite", "dry_run"),
    "report": ("start", "details", "title", "overwrite", "dry_run"),
    "run": ("out", "steps", "list", "show", "dry_run"),
    "slurm": ("out", "steps", "list", "profile", "submit", "dry_run"),
    "merge": ("safe", "base", "aligned", "unaligned", "method", "output", "sweep", "overwrite", "dry_run"),
    "inspect": ("fast",),
    "clean": ("yes", "dry_run"),
    "chat": ("against", "system", "max_new_tokens", "temperature"),
    "testbed": ("retrain", "overwrite", "dry_run"),
}  # fmt: skip
