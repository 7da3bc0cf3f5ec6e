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
    kind = [] if config.log_probs else ["--anchor-kind", "ce"]
    then = ["ogpsa", "train-sft", config.model, "--data", "DATA", "--anchor", str(result.path), *kind, "--out", "RUN"]
    details = console.summary_lines(result.manifest.summary)
    commands = [console.command_text(then)]
    if config.grade != "none":
        pairs = ["ogpsa", "prepare-data", str(result.path), "--format", "samples", "--out", "PAIRS"]
        commands.insert(0, console.command_text(pairs))
    console.finished("samples", result, *commands, details=details)
    return 0
