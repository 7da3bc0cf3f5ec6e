"""``ogpsa testbed``."""

from __future__ import annotations

from pipelines.configs.tools import TestbedConfig as Config

__all__ = ["RECIPE", "Config", "execute"]

RECIPE = "pipelines.commands.testbed"


def execute(config: Config) -> int:
    """Write the embedded model."""
    from ogpsa_cli import console
    from pipelines.commands import testbed

    result = testbed.run(config)
    then = ["ogpsa", "evaluate", str(result.path), "--suite", "testbed", "--out", "results"]
    console.finished("model", result, console.command_text(then))
    return 0
