"""``ogpsa build-basis``."""

from __future__ import annotations

from pipelines.configs.build_basis import BuildBasisConfig as Config

__all__ = ["RECIPE", "Config", "execute"]

RECIPE = "pipelines.commands.build_basis"


def execute(config: Config) -> int:
    """Build the basis."""
    from ogpsa_cli import console
    from pipelines.commands import build_basis

    result = build_basis.run(config)
    then = ["ogpsa", "train-sft", config.model, "--data", "DATA", "--basis", str(result.path), "--out", "runs/sft"]
    details = console.summary_lines(result.manifest.summary)
    console.finished("basis", result, console.command_text(then), details=details)
    return 0
