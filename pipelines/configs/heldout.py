"""Options of the held-out loss: the rows that it is measured on, when it is measured, and what depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipelines.core.config import CommandConfig, option

_HELD_OUT = "eval_data or eval_split"


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
        "Share of --data that is not trained on, and whose loss is measured during training; rows that ask the same "
        "question are on the same side.",
        panel="Held-out loss",
        gt=0,
        lt=1,
    )
    eval_every: int | None = option(
        None, "Measure every N steps, and at the end; by default ten times in a run.", panel="Held-out loss",
        needs=_HELD_OUT, ge=1,
    )  # fmt: skip
    early_stopping: int | None = option(
        None, "Stop when N measurements in a row bring no lower held-out loss.", panel="Held-out loss",
        needs=_HELD_OUT, ge=1,
    )  # fmt: skip
    min_delta: float = option(
        0.0, "By how much the loss must fall to count as lower, for --early-stopping.", panel="Held-out loss",
        needs="early_stopping", off=0.0, ge=0,
    )  # fmt: skip
    select: Literal["last", "best"] = option(
        "last", "Which weights become the model: the last, or those with the lowest held-out loss.",
        panel="Held-out loss", needs=_HELD_OUT, off="last",
    )  # fmt: skip

    @property
    def measures_held_out(self) -> bool:
        """Whether a held-out loss is measured."""
        return self.eval_data is not None or self.eval_split is not None

    def problems(self) -> list[str]:
        """What contradicts each other among the options of the held-out loss."""
        problems = [*super().problems()]
        if self.eval_data is not None and self.eval_split is not None:
            problems.append("--eval-data and --eval-split both say what is held out; leave one of them out")
        return problems
