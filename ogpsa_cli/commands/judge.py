"""``ogpsa judge``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.configs.judge import JudgeConfig
    from pipelines.evaluation.contract.grid import Grid


def execute(config: JudgeConfig) -> int:
    """Judge, and print figures and agreement."""
    from ogpsa_cli import console
    from pipelines.commands import judge
    from pipelines.core.job import rank
    from pipelines.judging.lines import judgement_lines
    from pipelines.judging.results import DISAGREEMENTS_FILE, ROWS_FILE

    result = judge.run(config)
    if rank() == 0:
        for part in judgement_lines(result.judgement, tables=console.is_verbose()):
            if isinstance(part, str):
                console.say(part)
            else:
                console.show(grid_table(part))
        console.write()
        console.say(f"verdicts: {result.path / ROWS_FILE}; disagreements: {result.path / DISAGREEMENTS_FILE}", dim=True)
    console.finished("judgement", result, console.command_text(["ogpsa", "inspect", str(result.path)]))
    return 0


def grid_table(grid: Grid) -> Table:
    """Counts by two outcomes as a table; on a narrow screen its rows become blocks."""
    from rich.table import Table

    from ogpsa_cli import console

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    for name in grid.columns:
        table.add_column(console.text(name), justify="right")
    for name, counts in grid.rows:
        table.add_row(console.text(name), *(console.text(count) for count in counts))
    return table
