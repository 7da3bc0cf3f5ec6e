"""The tokenised samples that an objective is taken over: kept with a basis, and dealt out to ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from data_registry.core.errors import ArtifactError
from pipelines.basis.passes import Batch, Objective, split_rows
from pipelines.tokens.labels import num_trained
from pipelines.tokens.padding import collate_pairs
from pipelines.tokens.pairs import SIDES

SAMPLES_FILE = "references.parquet"


@dataclass(frozen=True)
class ReferenceSet:
    """Tokenised samples of one reference objective.

    Attributes:
        name: of the objective.
        samples: for the token loss ``input_ids`` and ``labels``; for the preference
            loss ``prompt_ids``, ``chosen_ids``, ``rejected_ids``, ``ref_chosen_logps``, ``ref_rejected_logps``.
        kind: ``"sft"``, ``"sft-pairs"`` (both the token loss) or ``"dpo"``.
    """

    name: str
    samples: list[dict[str, Any]]
    kind: str = "sft"

    @property
    def num_tokens(self) -> int:
        """Number of trained tokens: labels that have a token before them."""
        if self.kind == "dpo":
            return sum(len(pair[f"{side}_ids"]) for pair in self.samples for side in SIDES)
        return sum(num_trained(sample["labels"]) for sample in self.samples)

    @property
    def total(self) -> int:
        """Number of units that the objective is the mean over: tokens, or pairs."""
        return len(self.samples) if self.kind == "dpo" else self.num_tokens


def objectives_for_rank(
    references: Sequence[ReferenceSet], *, batch_size: int, pad_token_id: int, rank: int, world_size: int
) -> list[Objective]:
    """The objectives as one rank sees them: its batches, padded, longest samples first."""
    collate_tokens = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)
    objectives = []
    for reference in references:

        def collate(samples: list[Any], kind: str = reference.kind) -> Batch:
            return collate_pairs(samples, pad_token_id) if kind == "dpo" else dict(collate_tokens(samples))

        # Batches of like lengths waste little padding; the order does not change a mean.
        key = "chosen_ids" if reference.kind == "dpo" else "input_ids"
        ordered = sorted(reference.samples, key=_length_of(key), reverse=True)
        batches, weights = [], []
        for samples, weight in split_rows(ordered, batch_size, rank, world_size):
            batches.append(collate(samples))
            weights.append(weight)
        objectives.append(Objective(reference.name, batches, weights, float(reference.total)))
    return objectives


def _length_of(column: str) -> Callable[[Mapping[str, Any]], int]:
    return lambda sample: len(sample[column])


_INTEGERS = pa.list_(pa.int32())
_TOKEN_COLUMNS = {"input_ids": _INTEGERS, "labels": _INTEGERS}
_PAIR_COLUMNS = {
    **dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"), _INTEGERS),
    **dict.fromkeys(("ref_chosen_logps", "ref_rejected_logps"), pa.float64()),
}


def write_references(directory: Path, references: Sequence[ReferenceSet]) -> None:
    """Keep the tokenised samples with the basis, so that a refresh needs nothing else."""
    columns = _PAIR_COLUMNS if references[0].kind == "dpo" else _TOKEN_COLUMNS
    rows = [
        {"objective": reference.name, "kind": reference.kind, **{key: sample[key] for key in columns}}
        for reference in references
        for sample in reference.samples
    ]
    schema = pa.schema({"objective": pa.string(), "kind": pa.string(), **columns})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), directory / SAMPLES_FILE)


def read_references(directory: Path, num_samples: int | None = None) -> list[ReferenceSet]:
    """The tokenised samples kept with a basis, or the first ``num_samples`` of each objective, in drawn order.

    Raises:
        ArtifactError: they cannot be read.
    """
    samples: dict[tuple[str, str], list[dict[str, Any]]] = {}
    try:
        for row in pq.read_table(directory / SAMPLES_FILE).to_pylist():
            samples.setdefault((row.pop("objective"), row.pop("kind")), []).append(row)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ArtifactError(
            f"the samples kept with the basis '{directory}' cannot be read: {error}",
            where=str(directory / SAMPLES_FILE),
            fix="build the basis again with --overwrite",
        ) from error
    return [ReferenceSet(name, _first(rows, kind, num_samples), kind) for (name, kind), rows in samples.items()]


def _first(rows: list[dict[str, Any]], kind: str, num_samples: int | None) -> list[dict[str, Any]]:
    # A pair is two rows of token loss, side by side.
    per_sample = 2 if kind == "sft-pairs" else 1
    return rows if num_samples is None else rows[: num_samples * per_sample]
