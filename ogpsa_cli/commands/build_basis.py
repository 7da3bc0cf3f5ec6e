"""``ogpsa build-basis``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.build_basis import BuildBasisConfig


def execute(config: BuildBasisConfig) -> int:
    """Build the basis."""
    from ogpsa_cli import console
    from pipelines.commands import build_basis

    result = build_basis.run(config)
    then = ["ogpsa", "train-sft", config.model, "--data", "DATA", "--basis", str(result.path), "--out", "runs/sft"]
    details = console.summary_lines(result.manifest.summary)
    console.finished("basis", result, console.command_text(then), details=details)
    return 0
