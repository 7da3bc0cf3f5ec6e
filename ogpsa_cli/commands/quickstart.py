"""``ogpsa quickstart``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.commands.quickstart import QuickstartResult
    from pipelines.configs.tools import QuickstartConfig


def execute(config: QuickstartConfig) -> int:
    """Run the whole chain on the embedded testbed."""
    from ogpsa_cli import console
    from pipelines.commands import quickstart

    result = quickstart.run(config)
    _show(result)
    then = console.command_text(["ogpsa", "inspect", str(result.path / "results" / "recommended")])
    console.finished("quickstart", result, then)
    return 0


def _show(result: QuickstartResult) -> None:
    from rich.text import Text

    from data_registry.core.visible import visible
    from ogpsa_cli import console

    heading = "bold yellow"
    console.show(Text("The commands that made this", style=heading))
    for command in result.commands:
        # The line is not wrapped, so that it can be copied.
        console.write(visible(f"  {command}"), dim=True)
    console.show(
        "",
        Text("What came out, with 95 % intervals", style=heading),
        result.table.to_rich() if console.is_terminal() else Text(result.table.to_plain()),
        *(Text(sentence) for sentence in result.sentences),
        "",
        Text.assemble(("page: ", "dim"), console.text(result.page)),
    )
