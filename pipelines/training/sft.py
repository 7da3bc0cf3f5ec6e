"""TRL's SFT trainer with projection."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from pipelines.configs.train import TrainSftConfig
from pipelines.models.reference import ModelSource
from pipelines.training import inputs
from pipelines.training import run as steps
from pipelines.training.anchoring import Rows, make_beside
from pipelines.training.arguments import trainer_arguments
from pipelines.training.checkpoints import run_files
from pipelines.training.data.heldout import sft_held_out
from pipelines.training.data.packing import PackingTest, num_sequences
from pipelines.training.data.replay import MixtureSampler
from pipelines.training.data.sft import SftData, sft_data
from pipelines.training.data.sources import SOURCES
from pipelines.training.data.weighting import WeightingCollator
from pipelines.training.mixin import TransformMixin
from pipelines.training.prompt_anchor import prompt_of
from pipelines.training.weighted_rows import WeightedRows


class ProjectedSFTTrainer(TransformMixin, WeightedRows, SFTTrainer):
    """TRL's SFT trainer with transforms and weights of tokens; without any it is TRL's own.

    Attributes:
        train_sampler: the sampler that replaces the trainer's own; None for the trainer's own.
    """

    train_sampler: MixtureSampler | None = None

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, *arguments: Any, **options: Any
    ) -> Any:
        """TRL's preparation; packed sequences keep the sources of their tokens, which TRL would leave out."""
        others = (processing_class, args, packing, *arguments)
        if not packing or SOURCES not in dataset.column_names:
            return super()._prepare_dataset(dataset, *others, **options)
        packed = super()._prepare_dataset(dataset.remove_columns(SOURCES), *others, **options)
        # The same rows in the same places, where TRL looks for labels.
        sources = dataset.select_columns(["input_ids", SOURCES]).rename_column(SOURCES, "labels")
        return packed.add_column(SOURCES, super()._prepare_dataset(sources, *others, **options)["labels"][:])

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return super()._get_train_sampler(train_dataset) if self.train_sampler is None else self.train_sampler


def make_trainer(
    config: TrainSftConfig, source: ModelSource, ds_config: dict[str, Any] | None, partial: Path, device: torch.device
) -> ProjectedSFTTrainer:
    """The trainer, ready for ``train()``.

    Args:
        config: the command's options.
        source: the model.
        ds_config: DeepSpeed's configuration or None.
        partial: the directory of the run being made.
        device: the device that the starting model computes on; the trainer finds its own.
    """
    tokenizer = inputs.load_training_tokenizer(config, source)
    bounds = inputs.training_bounds(config, source)
    data = sft_data(config, tokenizer, bounds)
    beside = make_beside(config, source, ds_config, tokenizer, device, _rows_of(config, data), bounds)
    arguments = trainer_arguments(SFTConfig, config, run_files.work_directory(partial), ds_config)
    trainer: ProjectedSFTTrainer = steps.build_trainer(
        ProjectedSFTTrainer, config, source, arguments, data.rows, tokenizer, partial, beside
    )
    trainer.left_out, trainer.shares = bounds.left_out, data.shares
    if config.token_weights is not None:
        trainer.normalise = config.normalise
        trainer.data_collator = WeightingCollator(trainer.data_collator)
    if data.sampler is not None:
        trainer.train_sampler = data.sampler
    if config.packing:
        trainer.add_callback(PackingTest(trainer))
    if data.held_out is not None:
        steps.install_held_out(trainer, sft_held_out(data.held_out), config, partial)
    return trainer


def _rows_of(config: TrainSftConfig, data: SftData) -> Rows:
    """What losses beside the trainer's must know of the rows."""
    per_sample = Fraction(1)
    if config.packing and config.anchors is not None:
        per_sample = Fraction(len(data.rows), num_sequences(data.rows, config.longest))
    if config.prompt_anchor == 0:
        return Rows(per_sample=per_sample)
    prompts, others = (
        [prompt_of(row["input_ids"], row["labels"]) for row in rows or ()] for rows in (data.safety, data.replay)
    )
    return Rows(prompts, others, per_sample)
