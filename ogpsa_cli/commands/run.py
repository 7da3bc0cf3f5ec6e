"""``ogpsa run``."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import Preempted

if TYPE_CHECKING:
    from pipelines.configs.run import RunConfig
    from pipelines.recipes.chain import Chain, Step
    from pipelines.recipes.state import State

_STYLES = {"up to date": "green", "to do": "yellow", "begun": "cyan"}


def execute(config: RunConfig) -> int:
    """Run the chain and return the exit code of the first step that fails, or 0."""
    from ogpsa_cli import console
    from pipelines.commands import run

    if config.list:
        show_recipes(config.recipe)
        return 0
    if config.show:
        from pipelines.recipes.recipe import read_recipe

        console.write(read_recipe(str(config.recipe))[1].rstrip("\n"))
        return 0
    chain, steps = run.prepare(config)
    return _run(chain, steps, overwrite=config.overwrite)


def dry_run(config: RunConfig) -> int:
    """Check every step and show the chain."""
    from ogpsa_cli import console
    from pipelines.commands import run

    if config.list or config.show:
        return execute(config)
    chain, steps = run.prepare(config)
    states = run.states(chain.steps)
    _show_graph(chain, steps, states)
    console.write("")
    for step in steps:
        # The line is not wrapped, so that it can be copied.
        console.write(console.command_text(["ogpsa", *step.arguments]), dim=True)
    return 0


def _run(chain: Chain, steps: Sequence[Step], *, overwrite: bool) -> int:
    from ogpsa_cli import console
    from ogpsa_cli.launch.steps import StepRunner

    rows: list[tuple[str, str, str]] = []
    runner = StepRunner({} if chain.threads is None else {"OMP_NUM_THREADS": str(chain.threads)})
    with runner.listening():
        for number, step in enumerate(steps, start=1):
            purpose = f": {step.purpose}" if step.purpose else ""
            console.hint(f"[{number}/{len(steps)}] {step.name} ({step.command}){purpose}")
            before, clock = _stamp(step), time.monotonic()
            if not overwrite and runner.finds_made(partial(_command(step).execute, step.config)):
                rows.append((step.name, "up to date", f"{time.monotonic() - clock:.0f} s"))
                continue
            code = runner.run([*step.arguments, *(["--overwrite"] if overwrite else [])])
            if code:
                _say_ended(step, number, len(steps), code)
                return code
            word = "up to date" if before is not None and before == _stamp(step) else "made"
            rows.append((step.name, word, f"{time.monotonic() - clock:.0f} s"))
    _show_rows(rows, steps)
    return 0


def _command(step: Step) -> Any:
    """The module of a step's command, with its ``execute``."""
    from pipelines.configs.commands import BY_NAME

    return importlib.import_module(f"ogpsa_cli.commands.{BY_NAME[step.command].module}")


def _stamp(step: Step) -> tuple[str, str] | None:
    """A value that changes whenever the artifact of a step is made again; None if there is no readable artifact."""
    from data_registry.core.errors import OgpsaError
    from data_registry.core.manifest import is_artifact, read_manifest

    try:
        manifest = read_manifest(step.out) if is_artifact(step.out) else None
    except OgpsaError:
        return None
    return (manifest.fingerprint, manifest.finished) if manifest is not None else None


def _say_ended(step: Step, number: int, total: int, code: int) -> None:
    from ogpsa_cli import console

    if code == Preempted.exit_code:
        console.hint(f"stopped in step '{step.name}' ({number} of {total}); the same command goes on from there")
        return
    done = f"; the {number - 1} before it {'is' if number == 2 else 'are'} done" if number > 1 else ""
    console.show_error(
        f"step '{step.name}' ({number} of {total}) ended with exit code {code}{done}",
        where=console.command_text(["ogpsa", *step.arguments]),
        fix="mend what the step reports above; the same command then goes on from there",
    )


def _show_rows(rows: Sequence[tuple[str, str, str]], steps: Sequence[Step]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ogpsa_cli import console

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for (name, word, seconds), step in zip(rows, steps, strict=True):
        style = "green" if word == "up to date" else "bold"
        table.add_row(
            console.text(name, "cyan"), Text(word, style=style), Text(seconds, style="dim"), console.text(step.out)
        )
    console.show(table)


def _show_graph(chain: Chain, steps: Sequence[Step], states: Mapping[str, State]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ogpsa_cli import console

    console.show(Text.assemble(console.text(chain.title, "bold cyan"), console.text(f"  {chain.description}")), "")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold yellow")
    for heading in ("step", "command", "needs", "makes", "state"):
        table.add_column(heading)
    for step in chain.steps:
        state = states[step.name]
        note = f": {state.note}" if state.note else ""
        left_out = step not in steps
        word = console.text("left out" if left_out else state.word + note, "dim")
        if not left_out:
            word.stylize(_STYLES.get(state.word, "red"))
        cells = (step.command, ", ".join(step.needs), step.out)
        table.add_row(console.text(step.name, "cyan"), *map(console.text, cells), word)
    console.show(table)


def show_recipes(word: str | None) -> None:
    """List the recipes that come with ogpsa, or those in whose text a word is."""
    from rich.table import Table
    from rich.text import Text

    from ogpsa_cli import console
    from pipelines.commands import run

    for recipe in console.having_word(
        run.listing(), word, lambda recipe: " ".join([recipe.name, recipe.description, *recipe.steps])
    ):
        console.show(Text.assemble((recipe.name, "bold cyan"), f"  {recipe.description}"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=False)
        table.add_row(Text("steps", style="dim"), ", ".join(recipe.steps))
        if recipe.variables:
            values = ", ".join(f"{name}={value}" for name, value in recipe.variables.items())
            table.add_row(Text("variables", style="dim"), values)
        console.show(table)
