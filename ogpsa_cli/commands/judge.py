"""``ogpsa judge``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.judge import JudgeConfig


def execute(config: JudgeConfig) -> int:
    """Judge, and print figures and agreement."""
    from ogpsa_cli import console
    from pipelines.commands import judge
    from pipelines.core.job import rank
    from pipelines.judging.lines import judgement_lines
    from pipelines.judging.results import DISAGREEMENTS_FILE, ROWS_FILE

    result = judge.run(config)
    if rank() == 0:
        for line in judgement_lines(result.judgement, tables=console.is_verbose()):
            console.say(line)
        console.write()
        console.say(f"verdicts: {result.path / ROWS_FILE}; disagreements: {result.path / DISAGREEMENTS_FILE}", dim=True)
    console.finished("judgement", result, console.command_text(["ogpsa", "inspect", str(result.path)]))
    return 0
