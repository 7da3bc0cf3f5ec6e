"""Options of the held-out loss: the rows that it is measured on, when it is measured, and what depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pipelines.core.config import CommandConfig, option


class HeldOutConfig(CommandConfig):
    """A loss on rows that are not trained on, measured during training."""

    eval_data: Path | None = option(
        None,
        "Prepared data set whose loss is measured during training and which is not trained on.",
        panel="Held-out loss",
        runtime=True,
    )
    eval_split: float | None = option(
        None,
        "Share of --data to hold out for this instead; rows that ask the same question are on the same side.",
        panel="Held-out loss",
        gt=0,
        lt=1,
    )
    eval_every: int | None = option(
        None, "Measure every N steps, and at the end; by default ten times in a run.", panel="Held-out loss", ge=1
    )
    early_stopping: int | None = option(
        None, "Stop when N measurements in a row bring no lower held-out loss.", panel="Held-out loss", ge=1
    )
    min_delta: float = option(
        0.0, "By how much the loss must fall to count as lower, for --early-stopping.", panel="Held-out loss", ge=0
    )
    select: Literal["last", "best"] = option(
        "last", "Which weights become the model: the last, or those with the lowest held-out loss.",
        panel="Held-out loss",
    )  # fmt: skip

    @property
    def measures_held_out(self) -> bool:
        """Whether a held-out loss is measured."""
        return self.eval_data is not None or self.eval_split is not None

    @model_validator(mode="after")
    def _check_held_out(self) -> HeldOutConfig:
        if self.eval_data is not None and self.eval_split is not None:
            raise ValueError("--eval-data and --eval-split both say what is held out; leave one of them out")
        if not self.measures_held_out:
            given = {
                "--eval-every": self.eval_every is not None,
                "--early-stopping": self.early_stopping is not None,
                "--select best": self.select == "best",
            }
            for flag, used in given.items():
                if used:
                    raise ValueError(f"{flag} needs held-out rows: give --eval-data DATA or --eval-split SHARE")
        if self.min_delta and self.early_stopping is None:
            raise ValueError("--min-delta is for --early-stopping N, which is not given")
        return self
