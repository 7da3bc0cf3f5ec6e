"""Opening a basis for training: check it against the model, read this rank's slices, deal samples out to ranks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from data_registry.core.errors import BasisMismatchError
from pipelines.basis.description import BasisDescription
from pipelines.basis.objectives.finding import reference_loss
from pipelines.basis.reading import open_basis
from pipelines.basis.references import objectives_for_rank, read_references
from pipelines.basis.storage import read_rows
from pipelines.core.job import rank, world_size
from pipelines.engine.shards.access import ShardAccess
from pipelines.passes.gradients import LossSum, Objective


@dataclass(frozen=True)
class TrainingBasis:
    """The parts of a basis that a training run needs.

    Attributes:
        description: the description that is kept with the basis.
        rows: this rank's slices: one ``[k, numel]`` tensor for each of the access's shards, in the stored dtype, on
            the device where rows belong.
        objectives: this rank's part of every reference objective, for refreshes.
        loss_sum: the reference loss of a batch, summed over its units.
        is_current: whether a refresh at the weights that training starts from would give the same rows.
    """

    description: BasisDescription
    rows: list[Tensor]
    objectives: list[Objective]
    loss_sum: LossSum
    is_current: bool


def open_basis_for_training(
    directory: Path,
    access: ShardAccess,
    *,
    architecture: str,
    model_fingerprint: str,
    pad_token_id: int,
    num_samples: int | None = None,
) -> TrainingBasis:
    """Open a basis for a model that stands ready to be trained. Every rank calls it and reads its own part.

    Args:
        directory: the directory of the basis.
        access: this rank's shards of the trainable parameters.
        architecture: the name of the model's class, for the message where the basis was built for another one.
        model_fingerprint: the fingerprint of the model that training starts from.
        pad_token_id: the id of the token that pads the batches of reference samples.
        num_samples: how many samples of each objective a refresh uses: the first that were drawn; None for all.

    Raises:
        InputError: there is no artifact.
        ArtifactError: it is no basis, or damaged.
        BasisMismatchError: it was built for other parameters than the model's trainable ones.
    """
    description, _ = open_basis(directory)
    check_fit(description, directory, access, architecture)
    objectives = objectives_for_rank(
        read_references(directory, num_samples),
        batch_size=description.batch_size,
        pad_token_id=pad_token_id,
        rank=rank(),
        world_size=world_size(),
    )
    return TrainingBasis(
        description=description,
        rows=read_rows(directory, access),
        objectives=objectives,
        loss_sum=reference_loss(description.kind).loss_sum(description.beta),
        is_current=description.holds_for(model_fingerprint, num_samples),
    )


def check_fit(description: BasisDescription, directory: Path | None, access: ShardAccess, architecture: str) -> None:
    """Refuse a basis that was built for other parameters than the model's trainable ones.

    Args:
        description: the description of the basis.
        directory: where it lies; None for one that is in memory alone.
        access: this rank's shards.
        architecture: the name of the model's class, for the message.

    Raises:
        BasisMismatchError: a parameter differs; the message names the first one.
    """
    here = {name: list(shape) for name, shape in zip(access.names, access.shapes, strict=True)}
    if here == description.shapes:
        return
    differing = next(name for name in {**here, **description.shapes} if here.get(name) != description.shapes.get(name))
    in_model, in_basis = here.get(differing, "absent"), description.shapes.get(differing, "absent")
    named = "the basis" if directory is None else f"basis '{directory}'"
    raise BasisMismatchError(
        f"{named} was built for {len(description.shapes)} parameters of {description.architecture}; "
        f"this model trains {len(here)} parameters of {architecture}",
        where=f"{differing} is {in_model} here and {in_basis} in the basis",
        fix="build one for this model:  ogpsa build-basis MODEL --reference DATA --out DIR  (same --lora-* options)",
    )
