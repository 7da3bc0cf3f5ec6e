"""Options that say how SFT's training sequences are made from data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipelines.core.config import CommandConfig, option


class SftDataConfig(CommandConfig):
    """Packing, and general data mixed in."""

    packing: bool = option(
        False,
        "Put several rows into one sequence of up to --max-length tokens, so that nothing is padded. Rows do not see "
        "each other, which is tested on your model before the first step. --batch-size then counts sequences.",
        panel="Training",
    )
    replay: Path | None = option(
        None,
        "Prepared general data to train on beside the safety data: as --anchor with --anchor-kind ce.",
        panel="Replay",
        runtime=True,
        needs="replay_ratio",
    )
    replay_ratio: float | None = option(
        None,
        "Share of the samples that come from --replay. Safety rows are all used in each epoch; with 0.25, a third as "
        "many replay rows are added to them.",
        panel="Replay",
        needs="replay",
        gt=0,
        lt=1,
    )
    replay_mean: Literal["separate", "pooled"] = option(
        "separate",
        "separate: safety rows and replay rows have a mean over tokens each, and both count the same. pooled: all rows "
        "share batches and one mean over tokens, so that long replay answers outweigh short refusals.",
        panel="Replay",
        needs="replay",
    )
