"""``ogpsa testbed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.tools import TestbedConfig


def execute(config: TestbedConfig) -> int:
    """Write the embedded model."""
    from ogpsa_cli import console
    from pipelines.commands import testbed

    result = testbed.run(config)
    then = ["ogpsa", "evaluate", str(result.path), "--suite", "testbed", "--out", "results"]
    console.finished("model", result, console.command_text(then))
    return 0
