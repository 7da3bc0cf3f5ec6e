"""``ogpsa sample``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.sample import SampleConfig


def execute(config: SampleConfig) -> int:
    """Answer the prompts."""
    from ogpsa_cli import console
    from pipelines.commands import sample

    result = sample.run(config)
    then = ["ogpsa", "train-sft", config.model, "--data", "DATA", "--replay", str(result.path), "--replay-ratio",
            "0.25", "--out", "runs/sft"]  # fmt: skip
    details = console.summary_lines(result.manifest.summary)
    console.finished("samples", result, console.command_text(then), details=details)
    return 0
