"""The Typer application: the list of commands, each of which is imported only when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from data_registry.core.errors import ConfigError
from pipelines.configs.commands import BY_NAME, COMMANDS

DESCRIPTION = (
    "Align a language model for safety and keep what it could do before.\n\n"
    "Training on safety data usually costs general ability. ogpsa keeps it in one of two ways: some general data holds "
    "the model to the answers it gave before (anchors), or training may not move the weights in the directions that "
    "general ability depends on (a basis). Commands hand each other directories."
)
EXAMPLES: tuple[tuple[str, str], ...] = (
    ("ogpsa quickstart", "see the method at work"),
    ("ogpsa prepare-data gsm8k --out data/general", "what must not be lost"),
    ("ogpsa prepare-data my_safety.jsonl --out data/safety", "what is to be learned"),
    ("ogpsa train-sft MODEL --data data/safety --anchor data/general --preset recommended --out run", ""),
    ("ogpsa evaluate MODEL --suite xstest-shipped --out results/start", ""),
    ("ogpsa evaluate run --suite xstest-shipped --out results/run", ""),
    ("ogpsa report results --start results/start --out report", "what it bought and what it cost"),
)


class LazyGroup(typer.core.TyperGroup):
    """Lists the commands by name alone and builds only the one that is run or whose help is shown."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The name, the command and the remaining arguments; only the options of this command are imported."""
        from ogpsa_cli import command

        name, rest = args[0] if args[0].startswith("-") else args[0].replace("_", "-"), args[1:]
        entry = BY_NAME.get(name)
        if entry is None:
            if name.startswith("-"):
                ctx.fail(f"no such option: {name}")
            if ctx.resilient_parsing:
                # A shell asks what could follow: nothing that is known, and no error between the user's words.
                return None, None, args
            raise unknown_command(name)
        built = command.build(entry, args, completing=ctx.resilient_parsing)
        # Completion looks at words that are not whole yet.
        return name, built, rest if ctx.resilient_parsing else command.in_our_spelling(entry, rest)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the overview."""
        from ogpsa_cli import help as help_page

        help_page.show_overview(DESCRIPTION, COMMANDS, EXAMPLES)


def unknown_command(name: str) -> ConfigError:
    """The error for a command that does not exist, with the one that was probably meant."""
    import difflib

    names = list(BY_NAME)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    meant = f" (did you mean '{close[0]}'?)" if close else ""
    return ConfigError(f"there is no command '{name}'{meant}", fix=f"one of: {', '.join(names)}")


def _show_version(value: bool) -> None:
    if value:
        from pipelines.core.environment import tool_version

        typer.echo(f"ogpsa {tool_version()}")
        raise typer.Exit


def _stub() -> None:
    """Stands for a command in the list; the real one is built when it is resolved."""


def create(*, with_completion: bool) -> typer.Typer:
    """The application with all its commands as stubs.

    Args:
        with_completion: with Typer's options that install shell completion. They cost every start a tenth of the
            time that help may take, so that they are there only when they are asked for.
    """
    app = typer.Typer(
        name="ogpsa",
        cls=LazyGroup,
        rich_markup_mode=None,
        add_completion=with_completion,
        # Typer's own help option asks pydantic to check that it was not given; ours below does not.
        add_help_option=False,
    )
    for entry in COMMANDS:
        app.command(entry.name, help=entry.summary)(_stub)

    @app.callback(invoke_without_command=True)
    def overview(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
        wants_help: Annotated[bool, typer.Option("--help", "-h", "--help-all")] = False,
    ) -> None:
        if wants_help or context.invoked_subcommand is None:
            typer.echo(context.get_help())
            raise typer.Exit

    return app


def invoke(argv: Sequence[str]) -> int:
    """Parse the arguments and run the command; usage errors and :class:`OgpsaError` are raised."""
    asked = any(word in ("--install-completion", "--show-completion") for word in argv)
    completes = "_OGPSA_COMPLETE" in os.environ
    if completes:
        from ogpsa_cli import completion

        completion.settle(os.environ)
    command = typer.main.get_command(create(with_completion=asked or completes))
    parsed = command(list(argv), prog_name="ogpsa", standalone_mode=False)
    if callable(parsed):
        return int(parsed())
    return parsed if isinstance(parsed, int) else os.EX_OK
