"""What ``--help`` shows: usage, description, options in panels, examples. Rendered by rich, without Typer's renderer.

Typer's own renderer imports Markdown and syntax highlighting, which takes half of the time allowed for showing help.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ogpsa_cli.flags import Flag
    from pipelines.configs.commands import Command

_MAX_WIDTH = 100
_MAX_NAME_WIDTH = 34
_NUM_EXAMPLES = 3
_NARROW = 64
"""Below this width an option's explanation stands under its name instead of beside it."""
# The panels that a newcomer needs come first, those that most users never touch come last; the other panels stand
# between them, in the order of the options.
_FIRST = ("Required", "Arguments", "Options", "Projection", "Training")
_LAST = ("LoRA", "Model", "Processes", "Logging", "Output", "Configuration")


def _console() -> Console:
    from rich.console import Console

    return Console(width=min(_MAX_WIDTH, shutil.get_terminal_size((_MAX_WIDTH, 40)).columns), highlight=False)


def show_overview(description: str, commands: Sequence[Command], examples: Sequence[tuple[str, str]]) -> None:
    """Print the help of ``ogpsa`` itself: its commands in groups and a first walk through them."""
    from rich.text import Text

    console = _console()
    _print_usage(console, "ogpsa COMMAND [OPTIONS]")
    console.print(Text(description), style="none")
    console.print()
    for panel in dict.fromkeys(entry.panel for entry in commands):
        rows = [
            (Text(entry.name, style="bold cyan"), Text(entry.summary)) for entry in commands if entry.panel == panel
        ]
        _print_panel(console, panel, rows, name_width=max(len(entry.name) for entry in commands))
    options = [
        (Text("--version", style="bold cyan"), Text("Show the version.")),
        (Text("--install-completion", style="bold cyan"), Text("Let the shell complete commands and options.")),
        (Text("--help, -h", style="bold cyan"), Text("Show this; 'ogpsa COMMAND --help' explains a command.")),
    ]
    _print_panel(console, "Options", options)
    _print_examples(console, [command if not note else f"{command:<62}# {note}" for command, note in examples])


def show_common(name: str, description: str, flags: Sequence[Flag], examples: Sequence[str], *, num_more: int) -> None:
    """Print the short help of one command: its common options under one heading.

    Args:
        name: the command's name.
        description: what it does; the first paragraph is shown.
        flags: the common options.
        examples: commands, of which the first few are shown.
        num_more: how many options are left out.
    """
    from rich.text import Text

    console = _console()
    _print_head(console, name, description.partition("\n\n")[0], flags)
    panels: dict[str, list[Flag]] = {"Required": [flag for flag in flags if flag.required]}
    panels["Common options"] = [flag for flag in flags if not flag.required]
    _print_flags(console, {title: rows for title, rows in panels.items() if rows})
    more = f"{num_more} more options and all examples:" if num_more else "All examples:"
    command = f"ogpsa {name} --help-all"
    between = "  " if len(more) + 2 + len(command) <= console.width else "\n  "
    console.print(Text.assemble((more + between, "dim"), (command, "green")))
    console.print()
    _print_examples(console, examples[:_NUM_EXAMPLES])


def show_command(name: str, description: str, flags: Sequence[Flag], examples: Sequence[str]) -> None:
    """Print the whole help of one command."""
    console = _console()
    _print_head(console, name, description, flags)
    panels: dict[str, list[Flag]] = {}
    for flag in flags:
        panels.setdefault("Required" if flag.required else flag.panel, []).append(flag)
    _print_flags(console, {panel: panels[panel] for panel in sorted(panels, key=_importance)})
    _print_examples(console, examples)


def _print_head(console: Console, name: str, description: str, flags: Sequence[Flag]) -> None:
    from rich.text import Text

    needed = [
        flag.names[0] if flag.positional else f"{flag.names[0]} {flag.metavar}" for flag in flags if flag.required
    ]
    optional = [f"[{flag.names[0]}]" for flag in flags if flag.positional and not flag.required]
    _print_usage(console, " ".join(["ogpsa", name, *optional, *needed, "[OPTIONS]"]))
    # Lines of the source have another width than the terminal.
    paragraphs = (" ".join(paragraph.split()) for paragraph in description.split("\n\n"))
    console.print(Text("\n\n".join(paragraphs)))
    console.print()


def _print_flags(console: Console, panels: Mapping[str, Sequence[Flag]]) -> None:
    rows = {title: [(_name(flag), _explanation(flag)) for flag in flags] for title, flags in panels.items()}
    width = min(_MAX_NAME_WIDTH, max(cell.cell_len for panel in rows.values() for cell, _ in panel))
    for title, cells in rows.items():
        _print_panel(console, title, cells, name_width=width)


def _importance(panel: str) -> int:
    """The sort key of a panel; panels with equal keys keep their order."""
    if panel in _FIRST:
        return _FIRST.index(panel) - len(_FIRST)
    return 1 + _LAST.index(panel) if panel in _LAST else 0


def _print_usage(console: Console, usage: str) -> None:
    from rich.text import Text

    console.print()
    console.print(Text.assemble(("Usage: ", "bold yellow"), (usage, "bold")))
    console.print()


def _name(flag: Flag) -> Text:
    from rich.text import Text

    text = Text(", ".join(flag.names), style="bold cyan")
    # The help text names long lists of choices; as a placeholder they would widen the column.
    metavar = flag.metavar if len(flag.metavar) <= _MAX_NAME_WIDTH - len(text) - 1 else "CHOICE"
    if metavar:
        text.append(f" {metavar}", style="not bold yellow")
    return text


def _explanation(flag: Flag) -> Text:
    from rich.text import Text

    text = Text(flag.help)
    if flag.kind == "list" and not flag.positional:
        text.append("" if "repeat" in flag.help.lower() else " (repeatable)", style="dim")
    # Long lists of methods stand in the text already.
    if flag.needs and flag.needs.count("--") <= 2 and not all(word in flag.help for word in _options_in(flag.needs)):
        text.append(f" [needs {flag.needs}]", style="dim")
    if flag.default:
        text.append(f" [default: {flag.default}]", style="dim")
    return text


def _options_in(text: str) -> list[str]:
    return [word for word in text.split() if word.startswith("--")]


def _print_panel(
    console: Console, title: str, rows: Iterable[tuple[Text, Text]], *, name_width: int | None = None
) -> None:
    from rich import box
    from rich.panel import Panel
    from rich.table import Table

    if console.width < _NARROW:
        _print_stacked(console, title, rows)
        return
    table = Table(box=None, show_header=False, expand=True, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(width=name_width)
    table.add_column(ratio=1)
    for row in rows:
        table.add_row(*row)
    console.print(Panel(table, title=title, title_align="left", border_style="dim", box=box.ROUNDED))


def _print_stacked(console: Console, title: str, rows: Iterable[tuple[Text, Text]]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    console.print(Text(title, style="bold yellow"))
    for name, explanation in rows:
        console.print(Padding(name, (0, 0, 0, 2)))
        console.print(Padding(explanation, (0, 0, 0, 6)))
    console.print()


def _print_examples(console: Console, examples: Sequence[str]) -> None:
    from rich.text import Text

    if not examples:
        return
    console.print(Text("Examples:", style="bold yellow"))
    for example in examples:
        command, separator, note = example.partition("  #")
        # Each example stays on one line, however narrow the terminal is, so that it can be copied.
        line = Text.assemble("  ", (command, "green"), (f"{separator}{note}", "dim"))
        console.print(line, soft_wrap=True)
