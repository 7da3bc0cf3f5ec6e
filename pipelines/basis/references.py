"""The tokenised samples that an objective is taken over: kept with a basis, and dealt out to ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_registry.core.errors import ArtifactError
from pipelines.basis.objectives.finding import reference_loss
from pipelines.basis.objectives.reference_loss import ReferenceLoss, Sample
from pipelines.basis.objectives.tokens import TokenLoss
from pipelines.passes.dealing import deal_tokens
from pipelines.passes.gradients import Objective

SAMPLES_FILE = "references.parquet"


@dataclass(frozen=True)
class ReferenceSet:
    """Tokenised samples of one reference objective.

    Attributes:
        name: the name of the objective.
        samples: the samples, with the columns that the loss defines.
        loss: the reference loss that is computed on the samples.
    """

    name: str
    samples: list[Sample]
    loss: ReferenceLoss = field(default_factory=TokenLoss)

    @property
    def num_rows(self) -> int:
        """Number of rows of the data set from which the samples were made."""
        return len(self.samples) // self.loss.samples_per_row

    @property
    def num_tokens(self) -> int:
        """Number of trained tokens."""
        return sum(map(self.loss.num_tokens, self.samples))

    @property
    def num_units(self) -> int:
        """Number of units that the objective is the mean over: tokens, or pairs."""
        return sum(map(self.loss.num_units, self.samples))


def objectives_for_rank(
    references: Sequence[ReferenceSet], *, batch_size: int, pad_token_id: int, rank: int, world_size: int
) -> list[Objective]:
    """The objectives with the batches of one rank, longest samples first; short ones share a batch with more others.

    Args:
        references: the samples of each objective.
        batch_size: the number of the longest samples in a batch; no batch has more tokens, padding included.
        pad_token_id: the id of the token that pads batches.
        rank: the rank of this process.
        world_size: the number of processes.
    """
    objectives = []
    for reference in references:
        loss, batches, weights = reference.loss, [], []
        for samples, weight in deal_tokens(
            reference.samples, batch_size, length=loss.length, rank=rank, world_size=world_size
        ):
            batches.append(loss.collate(samples, pad_token_id))
            weights.append(weight)
        objectives.append(Objective(reference.name, batches, weights, float(reference.num_units)))
    return objectives


def write_references(directory: Path, references: Sequence[ReferenceSet]) -> None:
    """Store the tokenised samples with the basis, so that a refresh needs no other data."""
    columns = references[0].loss.columns
    rows = [
        {"objective": reference.name, "kind": reference.loss.name, **{key: sample[key] for key in columns}}
        for reference in references
        for sample in reference.samples
    ]
    schema = pa.schema({"objective": pa.string(), "kind": pa.string(), **columns})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), directory / SAMPLES_FILE)


def read_references(directory: Path, num_samples: int | None = None) -> list[ReferenceSet]:
    """The tokenised samples kept with a basis, or the first ``num_samples`` of each objective, in drawn order.

    Raises:
        ArtifactError: the samples cannot be read.
    """
    samples: dict[tuple[str, str], list[Sample]] = {}
    try:
        for row in pq.read_table(directory / SAMPLES_FILE).to_pylist():
            samples.setdefault((row.pop("objective"), row.pop("kind")), []).append(row)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ArtifactError(
            f"the samples kept with the basis '{directory}' cannot be read: {error}",
            where=str(directory / SAMPLES_FILE),
            fix="build the basis again with --overwrite",
        ) from error
    return [_reference(name, reference_loss(kind), rows, num_samples) for (name, kind), rows in samples.items()]


def _reference(name: str, loss: ReferenceLoss, samples: list[Sample], num_rows: int | None) -> ReferenceSet:
    return ReferenceSet(name, samples if num_rows is None else samples[: num_rows * loss.samples_per_row], loss)
