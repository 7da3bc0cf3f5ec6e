"""The description kept with a basis: its objectives, the model and parameters that it fits, how it was made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

DESCRIPTION_FILE = "basis.json"


class ObjectiveRecord(BaseModel):
    """One reference objective of a basis."""

    model_config = ConfigDict(extra="forbid")
    name: str
    kind: str
    data: str
    data_fingerprint: str
    num_samples: int
    num_tokens: int
    loss: float


class BasisDescription(BaseModel):
    """What a basis is, what it was computed from, and how to compute it again."""

    model_config = ConfigDict(extra="forbid")
    objectives: list[ObjectiveRecord]
    dtype: str
    rank: int
    seed: int
    batch_size: int
    model: str
    model_fingerprint: str
    architecture: str
    lora: dict[str, Any] | None
    shapes: dict[str, list[int]]
    singular_values: list[float]
    beta: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_scope(cls, values: Any) -> Any:
        # Earlier versions wrote a scope here, always the same one. The scope is now an option where a basis is used.
        return {key: value for key, value in values.items() if key != "scope"} if isinstance(values, dict) else values

    @property
    def kind(self) -> str:
        """The name of the reference loss, which is the same for all objectives of the basis."""
        return self.objectives[0].kind

    def write(self, directory: Path) -> None:
        """Write it beside the rows."""
        (directory / DESCRIPTION_FILE).write_text(self.model_dump_json(indent=1) + "\n")

    def summary(self) -> dict[str, Any]:
        """Its figures for the manifest."""
        return {
            "objectives": {record.name: record.loss for record in self.objectives},
            "rank": self.rank,
            "dtype": self.dtype,
            "parameters": len(self.shapes),
            "elements": sum(math.prod(shape) for shape in self.shapes.values()) * self.rank,
            "singular_values": self.singular_values,
        }

    def holds_for(self, model_fingerprint: str, num_samples: int | None = None) -> bool:
        """Whether a refresh at the weights of a model would give the stored rows again.

        Args:
            model_fingerprint: the fingerprint of the model that training starts from.
            num_samples: how many samples of each objective a refresh uses; None for all that are kept.
        """
        fewer = num_samples is not None and any(num_samples < record.num_samples for record in self.objectives)
        # Adapters are drawn anew for every run, so that rows of adapters belong to other weights in any case.
        return not fewer and self.model_fingerprint == model_fingerprint and self.lora is None
