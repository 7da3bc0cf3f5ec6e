"""``ogpsa train-dpo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.train import TrainDpoConfig


def execute(config: TrainDpoConfig) -> int:
    """Train."""
    from ogpsa_cli import console
    from pipelines.commands import train_dpo

    result = train_dpo.run(config)
    then = ["ogpsa", "evaluate", str(result.path), "--suite", "reference-loss", "--data", "DATA", "--out", "results"]
    details = console.run_lines(result.manifest.summary)
    console.finished("run", result, console.command_text(then), details=details)
    return 0
