"""Options of answers that a model gives while it is being trained."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.config import CommandConfig, option


class ProgressSamplesConfig(CommandConfig):
    """Answers of the model as it learns: they change nothing that is trained."""

    sample_every: int = option(
        0,
        "Have the model answer the prompts of --sample-prompts every N optimizer steps and at the end; the answers go "
        "to samples.jsonl in the run and to the trackers. 0 asks nothing.",
        panel="Logging",
        runtime=True,
        needs="sample_prompts",
        off=0,
        ge=0,
    )
    sample_prompts: Path | None = option(
        None,
        "Prompts for --sample-every: a text file with one a line, a file of rows with a prompt or with messages, a "
        "prepared data set, or a prompt set of the registry. The first 32 are asked.",
        panel="Logging",
        runtime=True,
        needs="sample_every",
    )
    sample_tokens: int = option(
        128,
        "Most tokens of an answer of --sample-every.",
        panel="Logging",
        runtime=True,
        needs="sample_every",
        ge=1,
    )
    sample_temperature: float = option(
        0.0,
        "Temperature of the answers of --sample-every; 0 takes the likeliest token.",
        panel="Logging",
        runtime=True,
        needs="sample_every",
        off=0.0,
        ge=0,
    )
