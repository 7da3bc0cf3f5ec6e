"""``ogpsa import-model``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.import_model import ImportModelConfig


def execute(config: ImportModelConfig) -> int:
    """Import the model."""
    from ogpsa_cli import console
    from pipelines.commands import import_model

    result = import_model.run(config)
    then = ["ogpsa", "chat", str(result.path)]
    console.finished(
        "model", result, console.command_text(then), details=console.summary_lines(result.manifest.summary)
    )
    return 0
