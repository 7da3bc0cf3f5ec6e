"""Options of the training commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from pipelines.configs.anchors import AnchorConfig, Anchors
from pipelines.configs.common import (
    DROP_TOO_LONG_HELP,
    PassThrough,
    seed_option,
    split_numbers,
)
from pipelines.configs.heldout import HeldOutConfig
from pipelines.configs.lengths import MAX_LENGTH_HELP, PreparedLength
from pipelines.configs.presets import PresetName, filled, preset_problems, provenance
from pipelines.configs.progress_samples import ProgressSamplesConfig
from pipelines.configs.projection import REFRESH_EVERY_HELP, ProjectionConfig, RefreshEvery
from pipelines.configs.publishing import PublishingConfig
from pipelines.configs.sft_data import SftDataConfig
from pipelines.configs.weighting import (
    RejectedTokensConfig,
    SftWeightsConfig,
    TokenWeightsConfig,
    weighting_problems,
)
from pipelines.core.config import CommandConfig, option

# Options of TRL's trainer that say how it works and what it tells, and not what it makes.
RUNTIME_TRAINER_OPTIONS = frozenset(
    [
        "dataloader_num_workers",
        "dataloader_persistent_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "dataset_num_proc",
        "disable_tqdm",
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "include_num_input_tokens_seen",
        "include_tokens_per_second",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "logging_dir",
        "logging_first_step",
        "logging_nan_inf_filter",
        "logging_strategy",
        "project",
        "push_to_hub",
        "run_name",
        "skip_memory_metrics",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
        "ddp_timeout",
    ]
)


class TrainConfig(
    PreparedLength,
    TokenWeightsConfig,
    AnchorConfig,
    HeldOutConfig,
    ProgressSamplesConfig,
    PublishingConfig,
    ProjectionConfig,
):
    """What SFT and DPO training have in common."""

    command: ClassVar[str] = ""
    """The command's name, by which presets have values for it."""

    model: str = option(..., "Model: a directory, a hub id, or an earlier run of ogpsa.", positional=True, runtime=True)
    preset: PresetName | None = option(
        None,
        "Values for options that are not given: paper (the published rule and hyper-parameters; needs --basis), "
        "recommended (needs --anchor), or rank-1 (adapters of rank 1).",
        panel="Training",
        runtime=True,
    )
    data: list[Path] = option(
        ...,
        "Prepared safety data set; repeat to train on several together.",
        short="d",
        runtime=True,
        min_length=1,
    )
    weights: list[float] = option(
        [],
        "Shares of several data sets among the samples, as 2,1 for twice as many of the first. A set that is too small "
        "for its share is repeated, and no row is left out; by default all rows of each, once an epoch.",
        panel="Training",
    )
    epochs: float = option(3.0, "Passes over the data.", panel="Training", gt=0)
    max_steps: int | None = option(
        None, "Stop after this many optimizer steps, whatever --epochs says.", panel="Training", ge=1
    )
    learning_rate: float = option(1e-6, "Peak learning rate.", panel="Training", gt=0)
    batch_size: int = option(4, "Samples of one forward pass, per process.", panel="Training", short="b", ge=1)
    accumulation: int = option(4, "Forward passes per optimizer step.", panel="Training", ge=1)
    freeze: list[str] = option(
        [],
        "Parameters that keep exactly the weights they start with: names, patterns such as 'model.layers.0.*', or "
        "embeddings, norms, biases; several with commas.",
        panel="Training",
    )
    mask: Path | None = option(
        None,
        "Mask from build-mask: only the weights that it chooses are trained, all others stay exactly as they are.",
        panel="Training",
        runtime=True,
    )
    mask_at: Literal["update", "gradient"] = option(
        "update",
        "update: the optimizer sees the whole gradient, frozen weights are put back after its step (the published "
        "rule). gradient: their gradients are 0 before clipping, which saves memory and goes with --basis.",
        panel="Training",
        needs="mask",
        off="update",
    )
    track_change: bool = option(
        False,
        "Write how far every weight has moved, from the weights in full precision, into the run's folder change/.",
        panel="Training",
    )
    schedule: str = option(
        "cosine", "Learning-rate schedule of transformers: cosine, linear, constant, ...", panel="Training"
    )
    warmup_steps: float = option(
        0,
        "Warm-up of the learning rate, also of a constant one: whole steps, or a share of all steps if below 1.",
        panel="Training",
        ge=0,
    )
    weight_decay: float = option(0.0, "AdamW's weight decay.", panel="Training", ge=0)
    max_grad_norm: float = option(
        1.0, "Clip the projected gradient to this norm; 0 does not clip.", panel="Training", ge=0
    )
    max_length: int | None = option(None, MAX_LENGTH_HELP, panel="Training", ge=2)
    drop_too_long: bool = option(False, DROP_TOO_LONG_HELP, panel="Training")
    seed: int = seed_option(42, "Seed of data order, dropout and adapters.", panel="Training")
    save_every: int = option(
        100,
        "Write a checkpoint every N steps; 0 writes one only when a signal asks to stop.",
        panel="Checkpoints",
        ge=0,
        runtime=True,
    )
    keep: int = option(2, "Keep the last K checkpoints while training.", panel="Checkpoints", ge=1, runtime=True)
    resume: bool = option(
        True, "Go on from the last checkpoint of an unfinished run.", panel="Checkpoints", runtime=True
    )
    log_every: int = option(5, "Log metrics and diagnostics every N steps.", panel="Logging", ge=1, runtime=True)
    report_to: str = option(
        "none", "Also report to: tensorboard, wandb, trackio, or several with commas.", panel="Logging", runtime=True
    )
    trainer: PassThrough = option(
        {}, "Any option of TRL's trainer configuration, as --set trainer.KEY=VALUE.", panel="Training"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, options: Any) -> Any:
        return filled(options, cls.command)

    @field_validator("data", mode="before")
    @classmethod
    def _one_will_do(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value

    @field_validator("weights", mode="before")
    @classmethod
    def _split_weights(cls, value: Any) -> Any:
        return split_numbers(value)

    @field_validator("freeze")
    @classmethod
    def _split_at_commas(cls, patterns: list[str]) -> list[str]:
        words = [word.strip() for pattern in patterns for word in pattern.split(",")]
        return [word for word in words if word]

    @field_validator("warmup_steps")
    @classmethod
    def _whole_or_share(cls, steps: float) -> float:
        if steps >= 1 and not steps.is_integer():
            raise ValueError(f"{steps:g} is neither a whole number of steps nor a share of all steps below 1")
        return steps

    @property
    def scheduler(self) -> str:
        """The schedule by the name that transformers has for it, which is another where a constant one warms up."""
        return "constant_with_warmup" if self.schedule == "constant" and self.warmup_steps else self.schedule

    def problems(self) -> list[str]:
        """What contradicts each other among the options of data and of all edits of a step."""
        problems = [*super().problems()]
        if self.preset is not None:
            problems += preset_problems(self.preset, self.command, dict(self))
        if len(set(self.data)) < len(self.data):
            problems.append("--data names a data set twice; --weights says how often its rows are used")
        if self.weights and (len(self.weights) != len(self.data) or len(self.data) == 1):
            problems.append(f"--weights takes a number for each of several --data, and there are {len(self.data)}")
        elif any(weight <= 0 for weight in self.weights):
            problems.append("--weights takes numbers greater than 0")
        if self.trainer.get("torch_compile") and (self.anchors is not None or self.prompt_anchor > 0):
            problems.append(
                "trainer.torch_compile hides the model's states, which --anchor, --prompt-anchor and --replay with a "
                "separate mean look at: leave one of them out"
            )
        if self.track_change and self.select == "best":
            problems.append("--track-change measures to the last step, and --select best saves the weights of another")
        if self.mask is not None:
            problems += _mask_problems(self)
        if self.token_weights is not None:
            lost = self.eval_split is not None and self.drop_too_long
            problems += weighting_problems(len(self.data), self.trainer, numbers_lost=lost)
        return problems

    @classmethod
    def identity_of(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options that determine the result; among those of the trainer, those that do."""
        result = super().identity_of(values)
        if result.get("max_steps") is not None:
            # The number of steps is given, whatever --epochs says.
            result["epochs"] = cls.model_fields["epochs"].default
        trainer = result.get("trainer")
        if isinstance(trainer, dict):
            result["trainer"] = {key: value for key, value in trainer.items() if key not in RUNTIME_TRAINER_OPTIONS}
        return result

    def from_preset(self) -> dict[str, dict[str, Any]]:
        """The options that have the preset's values, and those that were given others; empty without a preset."""
        if self.preset is None:
            return {}
        same, other = provenance(self.preset, self.command, dict(self))
        return {"from_preset": same, "by_hand": other}

    @property
    def order_seed(self) -> int:
        """The seed of the choice and the order of rows."""
        seed = self.trainer.get("data_seed")
        return self.seed if seed is None else int(seed)

    def data_with_length(self) -> list[Path]:
        """The data sets of the task."""
        return [path for _, path in self.data_sets()]

    def data_beside(self) -> list[Path]:
        """The anchors."""
        return list(self.anchor)

    def data_sets(self) -> list[tuple[str, Path]]:
        """The prepared data sets of the task that training reads, each with its role."""
        held_out = [] if self.eval_data is None else [("eval-data", self.eval_data)]
        return [*(("data", path) for path in self.data), *held_out]


def _mask_problems(config: TrainConfig) -> list[str]:
    problems = []
    if config.lora_rank:
        problems.append("--mask names weights of the model, and --lora-rank trains adapters beside them")
    if config.basis is not None and config.space == "gradient" and config.mask_at == "update":
        problems.append(
            "--mask-at update does not go with --space gradient, where the optimizer's moments would mix projected and "
            "frozen weights: use --mask-at gradient, or --space update"
        )
    return problems


class TrainSftConfig(SftDataConfig, SftWeightsConfig, TrainConfig):
    """Fine-tune a model on safety answers; with --anchor or --basis so that it keeps its general ability."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa train-sft Qwen/Qwen2.5-0.5B-Instruct --data data/safety --basis basis --out runs/sft",
        "ogpsa train-sft MODEL --data data/safety --out runs/naive               # no basis: the baseline",
        "ogpsa train-sft MODEL --data data/safety --preset recommended --anchor samples --out runs/sft",
        "ogpsa train-sft MODEL --data data/safety --replay data/general --replay-ratio 0.25 --out runs/replay",
        "ogpsa train-sft MODEL --data data/safety --basis basis --space update --num-procs 4 --zero 2 --out runs/sft",
        "ogpsa train-sft MODEL --data data/safety --eval-split 0.1 --early-stopping 3 --select best --out runs/sft",
        "ogpsa train-sft --config sft.yaml --set trainer.neftune_noise_alpha=5 --out runs/sft",
    )

    command: ClassVar[str] = "train-sft"

    def data_sets(self) -> list[tuple[str, Path]]:
        """The data sets of every training command, and the replay data."""
        return [*super().data_sets(), *([] if self.replay is None else [("replay", self.replay)])]

    @property
    def pooled_replay(self) -> Path | None:
        """The general data whose rows share batches and their mean with the safety rows; None without any."""
        return self.replay if self.replay_mean == "pooled" else None

    @property
    def anchors(self) -> Anchors | None:
        """The anchor, which replay with a mean of its own is too."""
        if self.replay is None or self.replay_mean == "pooled":
            return super().anchors
        assert self.replay_ratio is not None, "the configuration is checked for it"
        return Anchors((self.replay,), "ce", self.replay_ratio, 1.0)

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """As for every command; replay had a pooled mean before there was a choice."""
        if recorded.get("replay") is not None and "replay_mean" not in recorded:
            recorded = {**recorded, "replay_mean": "pooled"}
        return super().differences(recorded)

    def problems(self) -> list[str]:
        """What contradicts each other among the options of SFT."""
        problems = [*super().problems()]
        if self.replay is not None and self.replay_mean == "separate" and self.anchor:
            problems.append(
                "--replay is an anchor with --anchor-kind ce: give its data to --anchor, or take --replay-mean pooled"
            )
        return problems


class TrainDpoConfig(RejectedTokensConfig, TrainConfig):
    """Train a model on preference pairs with DPO; with --anchor or --basis so that it keeps its general ability."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa train-dpo runs/sft --data data/pairs --basis basis --out runs/dpo",
        "ogpsa train-dpo MODEL --data data/pairs --out runs/naive-dpo            # no basis: the baseline",
        "ogpsa train-dpo runs/sft --data data/pairs --basis basis --loss ipo --num-procs 4 --zero 2 --out runs/dpo",
    )

    command: ClassVar[str] = "train-dpo"

    loss: str = option(
        "sigmoid",
        "Loss of TRL's DPO trainer: sigmoid, ipo, hinge, robust, apo_zero, ...; several, with commas, are added up.",
        panel="Preferences",
    )
    beta: float = option(
        0.2, "How strongly the model is held to the one it started from.", panel="Preferences",
        needs="loss!=sft", gt=0,
    )  # fmt: skip
    epochs: float = option(1.0, "Passes over the data.", panel="Training", gt=0)
    batch_size: int = option(2, "Pairs of one forward pass, per process.", panel="Training", short="b", ge=1)
    accumulation: int = option(16, "Forward passes per optimizer step.", panel="Training", ge=1)
    refresh_every: RefreshEvery = option(
        5,
        REFRESH_EVERY_HELP,
        panel="Projection",
        needs="basis",
    )

    def problems(self) -> list[str]:
        """What contradicts each other among the options of DPO."""
        problems = [*super().problems()]
        if self.prompt_anchor > 0 and self.trainer.get("padding_free"):
            problems.append(
                "--prompt-anchor does not go with trainer.padding_free, where the sides of pairs share a sequence: "
                "leave one of them out"
            )
        return problems

    @property
    def losses(self) -> tuple[str, ...]:
        """The names of the losses that are added up."""
        return tuple(name.strip() for name in self.loss.split(","))


class ReferenceLogpsConfig(CommandConfig):
    """What reference log-probabilities depend on, beside the model and the data."""

    tokens: str = option(..., "Hash of the tokenised pairs: template and length are in it.")
    precision: str = option(..., "Arithmetic.")
    held_in_precision: bool = option(
        ..., "Whether weights are held in that precision rather than cast as they are used."
    )
    attention: str | None = option(None, "Attention implementation.")


class TokenReferenceLogpsConfig(ReferenceLogpsConfig):
    """What they depend on where the log-probabilities of single tokens are stored beside their sums."""

    layout: Literal["tokens"] = option("tokens", "What is stored.")
