"""The steps of building a basis: tokenise references, make the model ready, compute gradients, write rows."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from data_registry.core import stopping
from data_registry.core.manifest import InputRecord
from data_registry.prepared import load_prepared
from pipelines.basis import storage
from pipelines.basis.description import BasisDescription, ObjectiveRecord
from pipelines.basis.inputs import role_of
from pipelines.basis.objectives.finding import reference_loss
from pipelines.basis.references import ReferenceSet, write_references
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.progress import Progress
from pipelines.engine import processes
from pipelines.engine.deepspeed_config import deepspeed_config
from pipelines.engine.shards.access import ShardAccess
from pipelines.models.limits import limits_of_source
from pipelines.models.loading import load_training_model
from pipelines.models.lora import add_adapters, lora_settings
from pipelines.models.reference import ModelSource
from pipelines.passes.engine import ReferenceEngine, reference_engine, zero3_loading
from pipelines.passes.gradients import Objective, ReferenceResult, reference_gradients
from pipelines.passes.log_probs import add_loss_head
from pipelines.tokens.fitting import Bounds
from pipelines.tokens.tokenizer import load_source_tokenizer
from pipelines.weights.writing import write_tensors

logger = logging.getLogger(__name__)


def tokenised_references(
    config: BuildBasisConfig, source: ModelSource
) -> tuple[list[ReferenceSet], int, dict[str, int]]:
    """Draw and tokenise the samples of every reference data set.

    Returns:
        The references; the id of the padding token; how many samples were left out as too long, by data set.
    """
    tokenizer = load_source_tokenizer(
        source, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    loss = reference_loss(config.objective)
    limits = limits_of_source(source, trust_remote_code=config.trust_remote_code)
    bounds = Bounds(config.longest, config.drop_too_long, limits)
    references = []
    for path in config.reference:
        dataset, _ = load_prepared(path, task=loss.task)
        if len(dataset) < config.num_samples:
            logger.info("%s has %d samples, fewer than the %d asked for", path, len(dataset), config.num_samples)
        drawn = random.Random(config.seed).sample(range(len(dataset)), min(config.num_samples, len(dataset)))
        samples = loss.encode(dataset.select(drawn), tokenizer, bounds, name=path.name)
        references.append(ReferenceSet(path.name, samples, loss))
    return references, int(tokenizer.pad_token_id), bounds.left_out


def with_reference(
    config: BuildBasisConfig, references: list[ReferenceSet], engine: ReferenceEngine, pad_token_id: int
) -> list[ReferenceSet]:
    """The references; where the loss needs start values, samples carry those of this very model. Collective."""
    return [
        replace(
            reference,
            samples=reference.loss.with_start_values(
                reference.samples, engine, batch_size=config.batch_size, pad_token_id=pad_token_id
            ),
        )
        for reference in references
    ]


def open_engine(config: BuildBasisConfig, source: ModelSource, device: torch.device) -> tuple[ReferenceEngine, str]:
    """The model ready for reference passes, and its architecture's name."""
    ds_config = deepspeed_config(config, on_cpu=device.type == "cpu")
    if ds_config is not None:
        processes.start_deepspeed()
    with zero3_loading(ds_config):
        model: Any = load_training_model(config, source)
    architecture = type(model).__name__
    add_loss_head(model.get_base_model() if source.is_adapter else model)
    settings = lora_settings(config)
    if settings is not None:
        model = add_adapters(model, settings, seed=config.seed)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    engine = reference_engine(model, ds_config, batch_size=config.batch_size, precision=config.precision, device=device)
    return engine, architecture


def compute_gradients(
    engine: ReferenceEngine, objectives: Sequence[Objective], config: BuildBasisConfig
) -> ReferenceResult:
    """The reference gradients of all objectives, with progress. Collective; it can be stopped between batches."""
    loss_of_batch = reference_loss(config.objective).loss_sum(config.beta)
    total = sum(len(objective.batches) for objective in objectives)
    device = engine.access.device()
    with stopping.deferred(), Progress("reference gradients", total=total, unit="batches") as progress:

        def loss_sum(model: Any, batch: Any) -> Tensor:
            loss = loss_of_batch(model, batch)
            progress.advance()
            return loss

        result = reference_gradients(
            engine.access,
            engine.forward,
            loss_sum,
            objectives,
            before_batch=lambda: processes.stop_point(device),
        )
        # A signal to stop may have arrived during the last batch.
        processes.stop_point(device)
        return result


def write_basis(
    writer: ArtifactWriter,
    config: BuildBasisConfig,
    references: Sequence[ReferenceSet],
    access: ShardAccess,
    result: ReferenceResult,
    architecture: str,
    left_out: Mapping[str, int],
) -> None:
    """Fill the artifact. Collective: every rank sends its rows to rank zero, which writes."""
    grams = storage.write_rows(writer.path, access, result.rows, storage.DTYPES[config.dtype])
    if grams is None:
        return
    write_tensors(writer.path / storage.GRAM_FILE, dict(zip(access.names, grams, strict=True)))
    storage.check_finite(access.names, grams)
    write_references(writer.path, references)
    description = _describe(config, writer.inputs, references, access, result.losses, grams, architecture)
    description.write(writer.path)
    writer.summary = {**description.summary(), **({"left_out": dict(left_out)} if left_out else {})}


def _describe(
    config: BuildBasisConfig,
    inputs: Sequence[InputRecord],
    references: Sequence[ReferenceSet],
    access: ShardAccess,
    losses: Sequence[float],
    grams: Tensor,
    architecture: str,
) -> BasisDescription:
    by_role = {record.role: record for record in inputs}
    model = by_role["model"]
    records = [
        ObjectiveRecord(
            name=reference.name,
            kind=reference.loss.name,
            data=data.path,
            data_fingerprint=data.fingerprint,
            num_samples=reference.num_rows,
            num_tokens=reference.num_tokens,
            loss=loss,
        )
        for reference, loss in zip(references, losses, strict=True)
        for data in [by_role[role_of(reference.name)]]
    ]
    singular = torch.linalg.eigvalsh(grams.sum(0)).clamp_min(0).sqrt().flip(0)
    return BasisDescription(
        objectives=records,
        dtype=config.dtype,
        rank=len(records),
        seed=config.seed,
        batch_size=config.batch_size,
        model=model.path,
        model_fingerprint=model.fingerprint,
        architecture=architecture,
        lora=lora_settings(config),
        shapes={name: list(shape) for name, shape in zip(access.names, access.shapes, strict=True)},
        singular_values=singular.tolist(),
        beta=config.beta if references[0].loss.takes_beta else None,
    )
