"""A trainer that makes a model forget answers, on TRL's SFT trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import torch.distributed as dist
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from data_registry.core.manifest import InputRecord
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.job import on_main, world_size
from pipelines.models.reference import ModelSource
from pipelines.tokens.fitting import encode_kept_pairs
from pipelines.tokens.labels import IGNORED
from pipelines.tokens.pairs import Pair
from pipelines.training import inputs as inputs_training
from pipelines.training import run as steps
from pipelines.training.anchoring import Rows, make_beside
from pipelines.training.arguments import trainer_arguments
from pipelines.training.beside import over_ranks
from pipelines.training.checkpoints import run_files
from pipelines.training.data.heldout import HeldOut, split_held_out, training_sizes
from pipelines.training.data.mixing import sets_of_rows, shares
from pipelines.training.data.reference_log_probs import eval_inputs, with_reference_logps
from pipelines.training.data.sources import SOURCES, source_names
from pipelines.training.data.unwanted import COLUMNS, Counts, UnwantedCollator, count, unwanted_rows
from pipelines.training.data.weighting import (
    REFERENCE,
    TOKEN_WEIGHTS,
    kept_in_float32,
    read_weights,
    refuse_no_weight,
)
from pipelines.training.dropout import switch_off_dropout
from pipelines.training.mixin import TransformMixin
from pipelines.training.prompt_anchor import prompt_of
from pipelines.training.unlearning import UnlearningLoss, log_ratios, unlearning_loss_sum


@dataclass
class NPOConfig(SFTConfig):
    """The trainer's own configuration; a class of its own, since not all of SFT's options are for it."""


@dataclass(frozen=True)
class Forgetting:
    """What is minimised.

    Attributes:
        loss: the loss of the unwanted answers.
        beta: its strength.
        gamma: what SimNPO adds.
        retain_weight: the weight of the mean cross-entropy of the chosen answers.
    """

    loss: UnlearningLoss
    beta: float
    gamma: float = 0.0
    retain_weight: float = 0.0


@dataclass(frozen=True)
class Sums:
    """Sums over a batch, scalars.

    Attributes:
        forgotten: the loss of the unwanted answers.
        ratios: their log-ratios, or log-probabilities where there is no reference; without gradients.
        retained: minus the log-probabilities of the chosen answers' tokens.
    """

    forgotten: Tensor
    ratios: Tensor
    retained: Tensor


class NPOTrainer(SFTTrainer):
    """TRL's SFT trainer with the losses of :mod:`pipelines.training.unlearning`, on batches of their collator.

    The means are over all tokens or answers of an optimizer step, whatever the ranks and accumulated batches.
    """

    forgetting: Forgetting
    loss_is_scaled_for_ga = True
    _counts = Counts()

    def _prepare_dataset(self, dataset: Any, *arguments: Any, **options: Any) -> Any:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*COLUMNS, SOURCES]

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return kept_in_float32(super()._prepare_inputs(inputs), inputs, self.args.device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """The number of weighted tokens of the step, over all ranks; the other counts are kept for the loss."""
        counts = count(batch_samples).to(device)
        if world_size() > 1:
            dist.all_reduce(counts)
        self._counts = Counts(*counts.tolist())
        return counts[0]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This batch's part of the loss of a step, times the number of ranks, over which engines take the mean."""
        sums, outputs = self.sums(model, inputs)
        whole, forgetting = self._counts, self.forgetting
        forgotten = sums.forgotten / max(1, units(forgetting, whole))
        loss, figures = forgotten, self._figures(sums, inputs)
        if forgetting.retain_weight:
            retained = sums.retained / max(1, whole.retained)
            loss = loss + forgetting.retain_weight * retained
            figures |= {"forget/loss": forgotten.detach(), "retain/loss": retained.detach()}
        num_batches = int(self.current_gradient_accumulation_steps)
        for name, value in over_ranks(figures, num_batches, loss).items():
            self._metrics["train"][name].append(value)
        loss = loss * world_size()
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / num_batches
        return (loss, outputs) if return_outputs else loss

    def sums(self, forward: Any, batch: Mapping[str, Any]) -> tuple[Sums, Any]:
        """The sums over a batch, and what the model gave. Collective where the engine's passes are.

        Args:
            forward: the callable for a forward pass.
            batch: a batch of :class:`UnwantedCollator`.
        """
        weights, labels = batch[TOKEN_WEIGHTS], batch["labels"]
        # What has no weight needs no log-probability.
        scored = torch.where(weights != 0, labels, batch["retain_labels"])
        given = {key: batch[key] for key in ("input_ids", "attention_mask", "position_ids") if key in batch}
        routers = {"output_router_logits": True} if self.aux_loss_enabled else {}
        outputs = forward(**given, **routers, labels=scored, use_cache=False, fused_lm_head=True)
        log_probs = outputs.log_probs.float()
        forgetting, weights, reference = self.forgetting, weights[:, 1:], batch[REFERENCE][:, 1:]
        forgotten = unlearning_loss_sum(
            forgetting.loss,
            log_probs,
            reference,
            weights,
            (labels[:, 1:] != IGNORED).sum(1),
            beta=forgetting.beta,
            gamma=forgetting.gamma,
        )
        # Without a loss that compares, the reference is 0.
        ratios = log_ratios(log_probs.detach(), reference, weights).sum()
        retained = -(log_probs * (batch["retain_labels"][:, 1:] != IGNORED)).sum()
        return Sums(forgotten, ratios, retained), outputs

    def _figures(self, sums: Sums, inputs: Mapping[str, Any]) -> dict[str, Any]:
        whole = self._counts
        here = Counts(*count([inputs]).tolist())
        return {
            f"forget/{_level(self.forgetting)}": sums.ratios / max(1, whole.weighted),
            "forget/counted": here.weighted / max(1, whole.tokens),
        }


class ProjectedNPOTrainer(TransformMixin, NPOTrainer):
    """The trainer with transforms."""


def units(forgetting: Forgetting, counts: Counts) -> float:
    """The number of what the loss of the unwanted answers is a mean over."""
    return counts.weighted if forgetting.loss == "npo-token" else counts.answers


def _level(forgetting: Forgetting) -> str:
    """The name of the mean that says how far forgetting has come, in nats a token."""
    return "log_prob" if forgetting.loss == "simnpo" else "log_ratio"


def make_trainer(
    config: TrainNpoConfig, source: ModelSource, ds_config: dict[str, Any] | None, partial: Path, device: torch.device
) -> ProjectedNPOTrainer:
    """The trainer, ready for ``train()``.

    Args:
        config: the command's options.
        source: the model that training starts from, which is also the reference.
        ds_config: DeepSpeed's configuration or None.
        partial: the directory of the run being made.
        device: the device to compute on.
    """
    tokenizer = inputs_training.load_training_tokenizer(config, source)
    prepared, out = split_held_out(config, "preference")
    bounds = inputs_training.training_bounds(config, source)
    records = on_main(lambda: inputs_training.training_inputs(config, source, task="preference"))
    pad_token_id = int(tokenizer.pad_token_id)

    def rows_of(
        data: datasets.Dataset, name: str, known: list[InputRecord], *, with_chosen: bool
    ) -> tuple[list[dict[str, Any]], list[int]]:
        pairs, kept = encode_kept_pairs(data, tokenizer, bounds, name=name)
        weights = _weights(config, pairs) if data is prepared else None
        if config.needs_reference:
            pairs = with_reference_logps(
                pairs, config, source, known, ds_config, pad_token_id, device, per_token=True, sides=("rejected",)
            )
        return unwanted_rows(pairs, weights=weights, with_chosen=with_chosen), kept

    rows, kept = rows_of(prepared, "training pairs", records, with_chosen=config.retain_weight > 0)
    held_out = None
    if out is not None:
        known = records if config.eval_data is None else eval_inputs(records)
        held_out, _ = rows_of(out, "held-out pairs", known, with_chosen=True)
    prompts = Rows([prompt_of(row["input_ids"], row["labels"]) for row in rows])
    beside = make_beside(config, source, ds_config, tokenizer, device, prompts, bounds)
    lengths = [len(row["input_ids"]) + len(row.get("retain_ids", ())) for row in rows]
    sizes = training_sizes(config, "preference")
    if len(source_names(config)) > 1:
        for row, length, which in zip(rows, lengths, sets_of_rows(config, sizes, kept), strict=True):
            row[SOURCES] = [which] * length
    arguments = trainer_arguments(NPOConfig, config, run_files.work_directory(partial), ds_config)
    trainer: ProjectedNPOTrainer = steps.build_trainer(
        ProjectedNPOTrainer, config, source, arguments, datasets.Dataset.from_list(rows), tokenizer, partial, beside
    )
    trainer.forgetting = Forgetting(config.loss, config.beta, config.gamma, config.retain_weight)
    trainer.data_collator = UnwantedCollator(trainer.data_collator)
    trainer.left_out = bounds.left_out
    trainer.shares = shares(config, sizes, kept, lengths)
    if not config.lora_dropout:
        # As for DPO: the starting model had none when its log-probabilities were computed.
        switch_off_dropout(trainer.model)
    if held_out is not None:
        steps.install_held_out(trainer, npo_held_out(held_out, trainer), config, partial)
    return trainer


def _weights(config: TrainNpoConfig, pairs: list[Pair]) -> list[list[float]] | None:
    """The weights of the tokens of the rejected answers that are trained on; None where all count the same."""
    if config.token_weights is None:
        return None
    found = read_weights(config, "rejected", [pair["rejected_ids"] for pair in pairs], task="preference")
    refuse_no_weight(config, found)
    return found


def npo_held_out(rows: list[dict[str, Any]], trainer: NPOTrainer) -> HeldOut:
    """The trainer's own loss on held-out rows, how far these are forgotten, and how likely their chosen answers are.

    Args:
        rows: the held-out rows, with chosen answers.
        trainer: the trainer, whose collator makes batches of rows.
    """
    whole = Counts(*count([trainer.data_collator(rows[i : i + 1]) for i in range(len(rows))]).tolist())
    names = ("eval_loss", f"eval_{_level(trainer.forgetting)}", "eval_chosen_log_prob")

    def sums(trainer: Any, forward: Any, batch: Mapping[str, Any]) -> Tensor:
        found, _ = trainer.sums(forward, batch)
        retained = found.retained.double() / max(1, whole.retained)
        forgotten = found.forgotten.double() / max(1, units(trainer.forgetting, whole))
        loss = forgotten + trainer.forgetting.retain_weight * retained
        return torch.stack([loss, found.ratios.double() / max(1, whole.weighted), -retained])

    # The sums are means already, each over what it counts.
    return HeldOut(rows, 1, names, sums)
