"""TRL's trainer configuration made from our options; options that users pass through are checked by its class."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.core.job import world_size
from pipelines.engine.deepspeed_config import deepspeed_config
from pipelines.training.data.packing import packing_values
from pipelines.training.refusals import check_arguments, check_deepspeed, check_schedule, refusals

# Options of ours decide these; if users could set them as well, the two might disagree.
_OURS = {
    "output_dir": "--out",
    "deepspeed": "--zero or --deepspeed",
    "bf16": "--precision",
    "fp16": "--precision",
    "learning_rate": "--learning-rate",
    "num_train_epochs": "--epochs",
    "max_steps": "--max-steps",
    "per_device_train_batch_size": "--batch-size",
    "gradient_accumulation_steps": "--accumulation",
    "lr_scheduler_type": "--schedule",
    "warmup_steps": "--warmup-steps",
    "weight_decay": "--weight-decay",
    "max_grad_norm": "--max-grad-norm",
    "max_length": "--max-length",
    "seed": "--seed",
    "logging_steps": "--log-every",
    "save_strategy": "--save-every",
    "save_steps": "--save-every",
    "save_total_limit": "--keep",
    "save_only_model": "--save-every, whose checkpoints are whole",
    "ignore_data_skip": "ogpsa, which goes on with the next sample",
    "auto_find_batch_size": "--batch-size",
    "enable_jit_checkpoint": "ogpsa, which saves when a signal asks to stop",
    "restore_callback_states_from_checkpoint": "--resume",
    "load_best_model_at_end": "--select",
    "resume_from_checkpoint": "--resume",
    "packing": "--packing",
    "packing_strategy": "--packing, which keeps rows whole and apart (bfd)",
    "eval_strategy": "--eval-every",
    "eval_steps": "--eval-every",
    "eval_on_start": "--eval-every",
    "eval_delay": "--eval-every",
    "do_eval": "--eval-data or --eval-split",
    "eval_packing": "ogpsa, which measures held-out rows one by one",
    "per_device_eval_batch_size": "--batch-size",
    "eval_accumulation_steps": "ogpsa, which keeps no predictions",
    "prediction_loss_only": "ogpsa, which keeps no predictions",
    "batch_eval_metrics": "ogpsa, which keeps no predictions",
    "eval_use_gather_object": "ogpsa, which keeps no predictions",
    "metric_for_best_model": "--select, which goes by the held-out loss",
    "greater_is_better": "--select, which goes by the held-out loss",
    "report_to": "--report-to",
    "push_to_hub": "--push-to-hub, which pushes the finished model",
    "hub_model_id": "--push-to-hub",
    "hub_private_repo": "--hub-private",
    "hub_token": "hf auth login, or HF_TOKEN",
    "hub_strategy": "--push-to-hub, which pushes the finished model",
    "hub_always_push": "--push-to-hub, which pushes the finished model",
    "hub_revision": "--push-to-hub, which pushes to the main branch",
    "gradient_checkpointing": "--gradient-checkpointing",
    "accelerator_config": "ogpsa, which deals every row to one rank",
    "completion_only_loss": "the data set's own answers, which alone are trained",
    "loss_type": "--loss",
    "beta": "--beta",
    "precompute_ref_log_probs": "ogpsa, which stores reference log-probabilities",
    "sync_ref_model": "ogpsa, which stores reference log-probabilities",
    "ld_alpha": "ogpsa, whose stored reference log-probabilities are whole sums",
    "assistant_only_loss": "the data set's own answers, which alone are trained",
    # Rows come tokenised and the model comes loaded: TRL would ignore these.
    "model_init_kwargs": "--attention, --precision and --revision",
    "trust_remote_code": "--trust-remote-code",
    "chat_template_path": "--chat-template",
    "truncation_mode": "--max-length, which cuts at the end",
    "dataset_text_field": "prepare-data, whose rows are conversations",
    "pad_token": "the tokenizer",
    "precompute_ref_batch_size": "--batch-size",
    "ref_model_sync_steps": "ogpsa, which stores reference log-probabilities",
    "ref_model_mixup_alpha": "ogpsa, which stores reference log-probabilities",
}
# Where the decision is another one than that of the table above.
_DECIDED = {
    ("SFTConfig", "loss_type"): "ogpsa, whose SFT is by cross-entropy (nll)",
    ("NPOConfig", "packing"): "ogpsa, which pads the answers to be forgotten",
    ("NPOConfig", "packing_strategy"): "ogpsa, which pads the answers to be forgotten",
    ("NPOConfig", "average_tokens_across_devices"): "ogpsa, whose means are over all processes",
}
# TRL accepts these, but ignores them or falls back with a warning.
_NOT_OFFERED = {
    ("DPOConfig", "padding_free"): "TRL's DPO trainer pads all the same",
    ("DPOConfig", "dataset_num_proc"): "pairs are tokenised beforehand",
    ("SFTConfig", "dataset_num_proc"): "rows are tokenised beforehand",
    ("NPOConfig", "dataset_num_proc"): "pairs are tokenised beforehand",
    ("NPOConfig", "dataset_kwargs"): "pairs are tokenised beforehand",
    ("NPOConfig", "padding_free"): "the answers to be forgotten are padded all the same",
    ("NPOConfig", "label_smoothing_factor"): "no loss of train-npo smooths labels",
    ("SFTConfig", "dataset_kwargs"): "rows are tokenised beforehand",
}


def trainer_arguments(
    arguments_class: type[Any], config: TrainConfig, output_dir: Path, ds_config: dict[str, Any] | None
) -> Any:
    """An instance of TRL's configuration class for this run.

    Args:
        arguments_class: TRL's configuration class, such as ``trl.SFTConfig``.
        config: the command's options; those in ``config.trainer`` are passed through.
        output_dir: the directory in which the trainer may write.
        ds_config: DeepSpeed's configuration or None.

    Raises:
        ConfigError: a passed-through option is unknown, decided elsewhere, or refused by the class.
    """
    check_names(arguments_class, config.trainer)
    check_schedule(config.schedule)
    values = {
        "output_dir": str(output_dir),
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps if config.max_steps is not None else -1,
        "learning_rate": config.learning_rate,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulation,
        "lr_scheduler_type": config.scheduler,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "seed": config.seed,
        "bf16": config.precision == "bf16",
        "tf32": None,
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if config.gradient_checkpointing else None,
        "logging_steps": config.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "logging_dir": None,
        "report_to": [name.strip() for name in config.report_to.split(",") if name.strip()],
        "save_strategy": "no",
        "deepspeed": ds_config,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": True,
        "optim": "adamw_torch",
        # Rows are tokenised and cut beforehand.
        "max_length": None,
        "packing": False,
        # DPO's own options; other classes do not know these names.
        **_preference_values(config),
        **(packing_values(config) if isinstance(config, TrainSftConfig) and config.packing else {}),
        "ddp_find_unused_parameters": False if world_size() > 1 else None,
    }
    known = {field.name for field in dataclasses.fields(arguments_class)}
    values = {key: value for key, value in values.items() if key in known}
    with warnings.catch_warnings():
        # TRL still uses names that transformers will rename soon.
        warnings.simplefilter("ignore", FutureWarning)
        with refusals(config.trainer):
            arguments = arguments_class(**{**values, **config.trainer})
    check_arguments(arguments)
    if arguments.n_gpu > 1:
        # One process computes on one GPU. transformers would spread its batches over all that it sees (DataParallel),
        # multiply the batch size, and hand losses that are no sums to what is computed beside them.
        arguments._n_gpu = 1
    return arguments


def check_trainer_options(arguments_class: type[Any], config: TrainConfig) -> None:
    """Refuse options that the trainer does not take, before a model is loaded or anything is computed.

    Args:
        arguments_class: TRL's configuration class.
        config: the command's options.

    Raises:
        ConfigError: as for :func:`trainer_arguments`.
    """
    _check_trackers(config.report_to)
    arguments = trainer_arguments(arguments_class, config, Path(config.out), None)
    if config.deepspeed is not None:
        values = deepspeed_config(config, on_cpu=not torch.cuda.is_available())
        assert values is not None, "there is a file"
        check_deepspeed(arguments, values)


def _preference_values(config: TrainConfig) -> dict[str, Any]:
    if not isinstance(config, TrainDpoConfig):
        return {}
    values = {"loss_type": list(config.losses), "beta": config.beta, "precompute_ref_log_probs": True}
    # TRL turns all dropout off by default, also that of adapters, which was then asked for in vain.
    return values | ({"disable_dropout": False} if config.lora_dropout else {})


def check_names(arguments_class: type[Any], given: dict[str, Any]) -> None:
    """Refuse passed-through options that the class does not know, or that options of ours decide.

    Raises:
        ConfigError: there are such options; the message lists all of them.
    """
    known = [field.name for field in dataclasses.fields(arguments_class) if field.init]
    problems = []
    for key in given:
        decided_by = _DECIDED.get((arguments_class.__name__, key), _OURS.get(key))
        if decided_by is not None:
            problems.append(f"option 'trainer.{key}' is decided by {decided_by}")
        elif (arguments_class.__name__, key) in _NOT_OFFERED:
            reason = _NOT_OFFERED[arguments_class.__name__, key]
            problems.append(f"option 'trainer.{key}' would have no effect: {reason}")
        elif key not in known:
            problems.append(f"unknown option 'trainer.{key}' of {arguments_class.__name__}{suggest(key, known)}")
    if problems:
        raise ConfigError(problems)


def _check_trackers(report_to: str) -> None:
    from transformers.integrations import get_available_reporting_integrations

    names = [name.strip() for name in report_to.split(",") if name.strip()]
    available = get_available_reporting_integrations()
    for name in names:
        if name not in ("none", "all") and name not in available:
            raise ConfigError(
                f"option 'report_to': '{name}' is not installed or not known{suggest(name, available)}",
                fix=f"install it, or choose from: none, {', '.join(available)}",
            )
