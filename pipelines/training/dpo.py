"""TRL's DPO trainer with projection and stored reference log-probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import torch
from trl import DPOConfig, DPOTrainer

from pipelines.configs.train import TrainDpoConfig
from pipelines.core.job import on_main
from pipelines.models.reference import ModelSource
from pipelines.tokens.fitting import encode_fitting_pairs, encode_kept_pairs
from pipelines.tokens.pairs import SIDES, num_tokens
from pipelines.training import inputs as inputs_training
from pipelines.training import run as steps
from pipelines.training.anchoring import Rows, make_beside
from pipelines.training.arguments import trainer_arguments
from pipelines.training.checkpoints import run_files
from pipelines.training.data.heldout import dpo_held_out, split_held_out, training_sizes
from pipelines.training.data.mixing import sets_of_rows, shares
from pipelines.training.data.reference_log_probs import eval_inputs, with_reference_logps
from pipelines.training.data.sources import SOURCES, source_names
from pipelines.training.data.weighting import WeightingCollator, weighted_pairs
from pipelines.training.dropout import switch_off_dropout
from pipelines.training.losses import couples_pairs
from pipelines.training.mixin import TransformMixin
from pipelines.training.weighted_pairs import WeightedPairs, with_weighted_references


class ProjectedDPOTrainer(TransformMixin, WeightedPairs, DPOTrainer):
    """TRL's DPO trainer that projects and weighs tokens, on tokenised pairs with reference log-probabilities."""

    def _prepare_dataset(self, dataset: Any, *arguments: Any, **options: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *arguments: Any, **options: Any) -> Any:
        return dataset

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        # transformers casts all numbers to the engine's type. In bf16 a sum of 400 nats is off by up to one, which the
        # loss would take for a preference.
        for name in (f"ref_{side}_logps" for side in SIDES):
            if name in inputs:
                prepared[name] = inputs[name].to(self.args.device)
        return prepared


def make_trainer(
    config: TrainDpoConfig, source: ModelSource, ds_config: dict[str, Any] | None, partial: Path, device: torch.device
) -> ProjectedDPOTrainer:
    """The trainer, ready for ``train()``.

    Args:
        config: the command's options.
        source: the model that training starts from, which is also DPO's reference model.
        ds_config: DeepSpeed's configuration or None.
        partial: the directory of the run being made.
        device: the device to compute on.
    """
    tokenizer = inputs_training.load_training_tokenizer(config, source)
    rows, out = split_held_out(config, "preference")
    bounds = inputs_training.training_bounds(config, source)
    pairs, kept = encode_kept_pairs(rows, tokenizer, bounds, name="training pairs")
    sizes = training_sizes(config, "preference")
    given = shares(config, sizes, kept, [num_tokens(pair) for pair in pairs])
    inputs = on_main(lambda: inputs_training.training_inputs(config, source, task="preference"))
    pad_token_id = int(tokenizer.pad_token_id)
    is_weighted = config.token_weights is not None or config.token_filter is not None
    if config.token_weights is not None:
        pairs = weighted_pairs(config, pairs)
    pairs = with_reference_logps(pairs, config, source, inputs, ds_config, pad_token_id, device, per_token=is_weighted)
    if is_weighted:
        pairs = with_weighted_references(pairs, filtered=config.token_filter is not None)
    if len(source_names(config)) > 1:
        sources = sets_of_rows(config, sizes, kept)
        pairs = [{**pair, SOURCES: [source] * num_tokens(pair)} for pair, source in zip(pairs, sources, strict=True)]
    held_out = None
    if out is not None:
        held_out = encode_fitting_pairs(out, tokenizer, bounds, name="held-out pairs")
        records = inputs if config.eval_data is None else eval_inputs(inputs)
        held_out = with_reference_logps(held_out, config, source, records, ds_config, pad_token_id, device)
    rows_of = Rows([pair["prompt_ids"] for pair in pairs])
    beside = make_beside(config, source, ds_config, tokenizer, device, rows_of, bounds)
    arguments = trainer_arguments(DPOConfig, config, run_files.work_directory(partial), ds_config)
    trainer: ProjectedDPOTrainer = steps.build_trainer(
        ProjectedDPOTrainer, config, source, arguments, datasets.Dataset.from_list(pairs), tokenizer, partial, beside
    )
    if arguments.disable_dropout:
        switch_off_dropout(trainer.model)
    trainer.left_out, trainer.shares = bounds.left_out, given
    if is_weighted:
        trainer.rejected_tokens = config.token_filter
        trainer.data_collator = WeightingCollator(trainer.data_collator)
    if held_out is not None:
        steps.install_held_out(trainer, dpo_held_out(held_out, alone=couples_pairs(config)), config, partial)
    return trainer
