"""``ogpsa train-sft``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.train import TrainSftConfig


def execute(config: TrainSftConfig) -> int:
    """Train."""
    from ogpsa_cli import console
    from pipelines.commands import train_sft

    result = train_sft.run(config)
    then = ["ogpsa", "evaluate", str(result.path), "--suite", "reference-loss", "--data", "DATA", "--out", "results"]
    details = console.run_lines(result.manifest.summary)
    console.finished("run", result, console.command_text(then), details=details)
    return 0
