"""Options of training that say how a basis is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from data_registry.core.shown import shown
from pipelines.configs.common import OutputConfig, TrainedLoraConfig
from pipelines.configs.memory_plan import PlannedConfig
from pipelines.core.config import option

RefreshEvery = int | Literal["auto"]
REFRESH_EVERY_HELP = (
    "Recompute the basis at the present weights every N steps (and at the start); 0 keeps it fixed, and auto does it "
    "when the rows have turned by --max-drift."
)


class ProjectionConfig(OutputConfig, PlannedConfig, TrainedLoraConfig):
    """How the reference subspace is used in training."""

    basis: Path | None = option(
        None,
        "Basis from build-basis. Without one, training is plain (the naive baseline).",
        panel="Projection",
        runtime=True,
    )
    space: Literal["gradient", "update"] = option(
        "gradient",
        "gradient: the published rule, projects the gradient. update: makes the optimizer's change itself orthogonal.",
        panel="Projection",
        needs="basis",
    )
    scope: Literal["tensor", "layer", "global"] = option(
        "tensor",
        "What shares a subspace: every tensor has its own (the published rule), every layer, or all together.",
        panel="Projection",
        needs="basis",
    )
    momentum: Literal["keep", "reproject"] = option(
        "keep",
        "reproject: in gradient space, take out of the optimizer's momentum what lies in the basis at every refresh.",
        panel="Projection",
        needs=("basis", "space=gradient", "refresh_every!=0"),
        off="keep",
    )
    refresh_every: RefreshEvery = option(
        30,
        REFRESH_EVERY_HELP,
        panel="Projection",
        needs="basis",
    )
    max_drift: float = option(
        20.0,
        "For --refresh-every auto: recompute the basis when its rows have probably turned by so many degrees; the "
        "angle is measured at every refresh.",
        panel="Projection",
        needs="refresh_every=auto",
        gt=0,
        le=90,
    )
    refresh_samples: int | None = option(
        None,
        "Samples of each reference data set at a refresh; by default as many as the basis was built from.",
        panel="Projection",
        needs=("basis", "refresh_every!=0"),
        ge=1,
    )
    strength: float = option(
        1.0,
        "Share of the forbidden component that is removed; 1 removes all.",
        panel="Projection",
        needs="basis",
        gt=0,
        le=1,
    )

    @field_validator("refresh_every", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        # A union of types would be refused once for each of its types.
        if value == "auto":
            return value
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            number = -1
        if number < 0 or (isinstance(value, float) and number != value):
            raise ValueError(f"must be a number of steps, 0 or more, or 'auto', got {shown(value)}")
        return number
