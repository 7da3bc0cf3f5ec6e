"""``ogpsa train-npo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.train_npo import TrainNpoConfig


def execute(config: TrainNpoConfig) -> int:
    """Train."""
    from ogpsa_cli import console
    from pipelines.commands import train_npo

    result = train_npo.run(config)
    then = ["ogpsa", "evaluate", str(result.path), "--suite", "reference-loss", "--data", "DATA", "--out", "results"]
    details = console.run_lines(result.manifest.summary)
    console.finished("run", result, console.command_text(then), details=details)
    return 0
