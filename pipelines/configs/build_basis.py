"""Options of ``ogpsa build-basis``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pipelines.configs.common import DROP_TOO_LONG_HELP, OutputConfig, seed_option
from pipelines.configs.lengths import MAX_LENGTH_HELP, PreparedLength
from pipelines.configs.memory_plan import PlannedConfig
from pipelines.configs.objectives import OBJECTIVES_HELP, ObjectiveName
from pipelines.core.config import option


class BuildBasisConfig(PreparedLength, OutputConfig, PlannedConfig):
    """Estimate the reference gradients of a model on general-capability data and store them as a basis."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa build-basis Qwen/Qwen2.5-0.5B-Instruct --reference data/gsm8k --reference data/halueval --out basis",
        "ogpsa build-basis runs/sft --reference data/general --num-samples 200 --num-procs 2 --zero 3 --out basis",
    )

    model: str = option(..., "Model: a directory, a hub id, or an earlier run of ogpsa.", positional=True, runtime=True)
    reference: list[Path] = option(
        ...,
        "Prepared general-capability data set; repeat for several objectives.",
        short="r",
        runtime=True,
        min_length=1,
    )
    objective: ObjectiveName = option("sft", f"Reference loss. {OBJECTIVES_HELP}.")
    beta: float = option(0.2, "Beta of the preference loss.", needs="objective=dpo", gt=0)
    num_samples: int = option(200, "Samples of each reference data set, drawn with --seed.", short="n", ge=1)
    seed: int = seed_option(0, "Seed of the draw.")
    dtype: Literal["fp32", "bf16"] = option("fp32", "Number format in which the rows are stored.")
    batch_size: int = option(4, "Samples of one forward pass, per process.", short="b", ge=1)
    max_length: int | None = option(None, MAX_LENGTH_HELP, ge=2)
    drop_too_long: bool = option(False, DROP_TOO_LONG_HELP)

    def data_with_length(self) -> list[Path]:
        """The reference data sets."""
        return list(self.reference)
