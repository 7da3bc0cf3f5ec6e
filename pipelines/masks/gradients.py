"""Scores from gradients at the present weights: their mean, the mean of their squares, or weight times gradient."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from data_registry.core import stopping
from data_registry.prepared import load_prepared
from pipelines.basis import storage
from pipelines.basis.objectives.finding import reference_loss
from pipelines.basis.objectives.reference_loss import ReferenceLoss
from pipelines.basis.references import ReferenceSet, objectives_for_rank
from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.core.job import is_main, rank, world_size
from pipelines.core.progress import Progress
from pipelines.engine import processes
from pipelines.engine.deepspeed_config import deepspeed_config
from pipelines.models.limits import limits_of_source
from pipelines.models.loading import load_training_model
from pipelines.models.reference import ModelSource
from pipelines.passes.engine import ReferenceEngine, reference_engine, zero3_loading
from pipelines.passes.gradients import LossSum, Objective, reference_gradients
from pipelines.passes.log_probs import add_loss_head
from pipelines.tokens.fitting import Bounds
from pipelines.tokens.tokenizer import load_source_tokenizer

STEM = "scores"
GradientScore = Literal["gradient", "fisher", "snip"]


@dataclass(frozen=True)
class Samples:
    """Tokenised samples, and the id of the token that pads them."""

    reference: ReferenceSet
    pad_token_id: int

    def objectives(self, score: str, batch_size: int) -> list[Objective]:
        """This rank's part: one objective of all samples, or for ``fisher`` one of each ``batch_size`` samples.

        Samples are grouped before they are dealt out to ranks, so that fisher does not depend on their number.
        """
        loss, samples = self.reference.loss, self.reference.samples
        size = batch_size * loss.samples_per_row
        groups = [samples[i : i + size] for i in range(0, len(samples), size)] if score == "fisher" else [samples]
        references = [ReferenceSet(f"{self.reference.name} {i}", group, loss) for i, group in enumerate(groups)]
        return objectives_for_rank(
            references,
            batch_size=batch_size,
            pad_token_id=self.pad_token_id,
            rank=rank(),
            world_size=world_size(),
        )


def write_gradient_scores(
    config: BuildMaskConfig, source: ModelSource, device: torch.device, folder: Path
) -> dict[str, tuple[int, ...]]:
    """Compute the scores and write them as ``[1, n_t]`` float32 rows by parameter. Collective.

    Args:
        config: the command's options.
        source: the model.
        device: the device to compute on.
        folder: the folder that is made for the rows.

    Returns:
        The shapes of the model's parameters by name.

    Raises:
        OgpsaError: the data or the model cannot be used, or a gradient is not finite.
    """
    samples = _samples(config, source)
    engine = _open_engine(config, source, device)
    reference = samples.reference.loss.with_start_values(
        samples.reference.samples, engine, batch_size=config.batch_size, pad_token_id=samples.pad_token_id
    )
    samples = Samples(ReferenceSet(samples.reference.name, reference, samples.reference.loss), samples.pad_token_id)
    rows = gradient_scores(
        engine,
        samples.objectives(config.score, config.batch_size),
        samples.reference.loss.loss_sum(config.beta),
        config.score,
    )
    if is_main():
        folder.mkdir()
    grams = storage.write_rows(folder, engine.access, rows, torch.float32, stem=STEM)
    if grams is not None:
        storage.check_finite(engine.access.names, grams)
    return dict(zip(engine.access.names, engine.access.shapes, strict=True))


def gradient_scores(
    engine: ReferenceEngine, objectives: Sequence[Objective], loss_sum: LossSum, score: str
) -> list[Tensor]:
    """The scores of this rank's shards, one ``[1, numel]`` float32 tensor each. Collective, and can be stopped.

    Args:
        engine: the model ready for passes.
        objectives: this rank's part of the data; for ``fisher`` the squares of each one's gradient are averaged.
        loss_sum: the loss of a batch, summed over its units.
        score: ``"gradient"``: |g|; ``"fisher"``: the mean of g^2; ``"snip"``: |theta g|.
    """
    access, device = engine.access, engine.access.device()
    sums = [torch.zeros(1, shard.numel, device=access.rows_device()) for shard in access.shards]
    total = sum(len(objective.batches) for objective in objectives)
    with stopping.deferred(), Progress("gradients", total=total, unit="batches") as progress:

        def counted(model: Any, batch: Any) -> Tensor:
            loss = loss_sum(model, batch)
            progress.advance()
            return loss

        for objective in objectives:
            result = reference_gradients(
                access, engine.forward, counted, [objective], before_batch=lambda: processes.stop_point(device)
            )
            for held, row in zip(sums, result.rows, strict=True):
                held += row.square_() if score == "fisher" else row
        processes.stop_point(device)
    if score == "snip":
        for held, master in zip(sums, access.masters(), strict=True):
            held *= master.weights().float()
    return [held.div_(len(objectives)) if score == "fisher" else held.abs_() for held in sums]


def _samples(config: BuildMaskConfig, source: ModelSource) -> Samples:
    assert config.data is not None
    tokenizer = load_source_tokenizer(
        source, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    loss: ReferenceLoss = reference_loss(config.objective)
    limits = limits_of_source(source, trust_remote_code=config.trust_remote_code)
    dataset, _ = load_prepared(config.data, task=loss.task)
    drawn = random.Random(config.seed).sample(range(len(dataset)), min(config.num_samples, len(dataset)))
    bounds = Bounds(config.longest, config.drop_too_long, limits)
    encoded = loss.encode(dataset.select(drawn), tokenizer, bounds, name=config.data.name)
    return Samples(ReferenceSet(config.data.name, encoded, loss), int(tokenizer.pad_token_id))


def _open_engine(config: BuildMaskConfig, source: ModelSource, device: torch.device) -> ReferenceEngine:
    ds_config = deepspeed_config(config, on_cpu=device.type == "cpu")
    if ds_config is not None:
        processes.start_deepspeed()
    with zero3_loading(ds_config):
        model: Any = load_training_model(config, source)
    add_loss_head(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return reference_engine(model, ds_config, batch_size=config.batch_size, precision=config.precision, device=device)
