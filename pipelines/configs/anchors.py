"""Options that hold a model to what it was: answers of the starting model beside the safety data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipelines.core.config import CommandConfig, option


class AnchorConfig(CommandConfig):
    """Rows that keep abilities, with a loss of their own and its own mean."""

    anchor: Path | None = option(
        None,
        "Rows on which the model is held to what it was, beside the safety data: samples of the starting model (from "
        "ogpsa sample), or for --anchor-kind ce any prepared data set.",
        panel="Anchor",
        runtime=True,
    )
    anchor_kind: Literal["kl", "ce"] = option(
        "kl",
        "kl: the divergence from what the sampled model expected at every place, for samples with --log-probs. "
        "ce: cross-entropy on the rows' answers.",
        panel="Anchor",
        needs="anchor",
    )
    anchor_ratio: float = option(
        0.25,
        "Anchor rows as a share of all rows of an optimizer step; there is at least one in every step.",
        panel="Anchor",
        needs="anchor",
        gt=0,
        lt=1,
    )
    anchor_weight: float = option(
        1.0,
        "Weight of the anchor's loss, which is a mean over the tokens of its own rows.",
        panel="Anchor",
        needs="anchor",
        ge=0,
    )
