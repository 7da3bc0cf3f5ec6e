"""What commands print: results on standard output, errors and hints on standard error.

Everything that is printed here passes :func:`~data_registry.core.visible.visible`, whoever wrote it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import select
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import typer

from data_registry.core.errors import InputError
from data_registry.core.redaction import hide, hide_arguments
from data_registry.core.shown import message
from data_registry.core.visible import visible, visible_json
from ogpsa_cli import fitting
from pipelines.core.job import rank

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

    from data_registry.core.errors import OgpsaError
    from pipelines.core.config import CommandConfig
    from pipelines.core.making import Made


EntryT = TypeVar("EntryT")

_WIDE = 400
_NEXT_PROBLEM = "\n  - "
# The stream that results go to while a command runs; None means standard output itself.
_results: TextIO | None = None
_reader_is_gone = False


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """Reserve standard output for results: whatever libraries print there meanwhile goes to standard error."""
    global _results, _reader_is_gone
    if not _is_real_output():
        yield
        return
    sys.stdout.flush()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    # A character that the terminal cannot encode must not lose the result, so it is replaced.
    _results = os.fdopen(descriptor, "w", encoding=sys.stdout.encoding, errors="replace")
    try:
        yield
        _results.flush()
    except BrokenPipeError:
        _reader_is_gone = _is_broken(_results)
        raise
    finally:
        sys.stdout.flush()
        os.dup2(descriptor, 1)
        if _reader_is_gone:
            _discard(descriptor)
        _results.close()
        _results = None


def _is_real_output() -> bool:
    try:
        return sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


def _is_broken(stream: TextIO) -> bool:
    """Whether the stream has lost its reader. Another write would not show it: a failed write drops the buffer."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    except (OSError, ValueError):
        return False


def _discard(descriptor: int) -> None:
    """Send what is still buffered for a descriptor to the null device, since flushing it again would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _output() -> TextIO:
    return sys.stdout if _results is None else _results


def write(text: str = "", *, dim: bool = False) -> None:
    """Print a line, or lines, of a result."""
    typer.secho(visible(text, block=True), file=_output(), dim=dim or None, color=_colour())


def say(text: str = "", *, dim: bool = False) -> None:
    """Print a line of a result for people: on a terminal broken between words, elsewhere as it is."""
    text = visible(text)
    for line in fitting.wrapped(text, fitting.width_of(_output())) if _output().isatty() else [text]:
        typer.secho(line, file=_output(), dim=dim or None, color=_colour())


def write_part(text: str) -> None:
    """Print a piece of a result at once, without ending the line."""
    stream = _output()
    stream.write(visible(text, block=True))
    stream.flush()


def text(value: object, style: str = "") -> Text:
    """A name or another value of one line, for a table or a tree."""
    from rich.text import Text

    return Text(visible(str(value)), style=style)


def terminal() -> Console:
    """A rich console on standard output, for text that is redrawn in place."""
    return _console(file=_output())


def _console(**options: Any) -> Console:
    """A rich console for which every text is text: no markup, no names of emoji, no control characters."""
    from rich.console import Console
    from rich.segment import Segment

    class Plain(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                is_text = not segment.control
                yield Segment(visible(segment.text, block=True), segment.style) if is_text else segment

    return Plain(highlight=False, markup=False, emoji=False, **options)


def _colour() -> bool | None:
    """The value for typer's ``color``: None lets typer look at the stream; False, for NO_COLOR, turns colours off."""
    return False if "NO_COLOR" in os.environ else None


def show(*renderables: RenderableType) -> None:
    """Print on standard output: coloured and fitted to a terminal; elsewhere plain, without wrapping or padding."""
    if is_terminal():
        console = terminal()
        for renderable in renderables:
            for part in fitting.fitted(console, renderable):
                # A word that is longer than a line, such as a path, is left whole.
                console.print(part, overflow="ignore", crop=False)
        return
    console = _console(width=_WIDE, color_system=None)
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable, soft_wrap=True)
    write("\n".join(line.rstrip() for line in capture.get().splitlines()))


def fits(table: Table) -> bool:
    """Whether the terminal is wide enough for a table, with no word broken."""
    return fitting.fits(terminal(), table)


def is_verbose() -> bool:
    """Whether ``--verbose`` was given."""
    return logging.getLogger("ogpsa_cli").isEnabledFor(logging.DEBUG)


def is_terminal() -> bool:
    """Whether standard output is read by a person who sees colours."""
    return _output().isatty() and "NO_COLOR" not in os.environ


def print_json(value: Any) -> None:
    """Print a value as indented JSON; what is not fit to be shown is escaped as JSON does it."""
    write(visible_json(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def print_plan(config: CommandConfig, work: str) -> None:
    """Print what would be done as comments, and the resolved options below as YAML: ``--config`` reads it back.

    Args:
        config: the resolved options.
        work: the name of the command's module, below ``pipelines.commands``, whose ``plan`` is called.
    """
    rows = [(str(name), str(value)) for name, value in importlib.import_module(work).plan(config)]
    width = max((len(name) for name, _ in rows), default=0)
    write("# plan")
    for name, value in rows:
        say(f"#   {name:<{width}}  {value}")
    write("# options")
    write(config.to_yaml().rstrip("\n"))


def finished(what: str, result: Made, *then: str, details: Sequence[str] = ()) -> None:
    """Say where the result lies and which command is the natural next step.

    Args:
        what: what was made, such as ``"basis"``.
        result: what the command made.
        then: the commands that can be run next; the user replaces their upper-case words.
        details: further lines about the result.
    """
    if rank() != 0:
        return
    path = _from_here(result.path)
    say(f"up to date: {path}" if result.up_to_date else f"{what}: {path}")
    for line in details:
        say(line)
    for position, command in enumerate(then):
        hint(f"{'next: ' if position == 0 else 'or:   '} {command}")


def summary_rows(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The figures of a manifest's summary as pairs of name and text; those in a group are named ``group.name``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from summary_rows(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _short(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        shown = ", ".join(_short(item) for item in value[:8])
        return shown + (f", ... ({len(value)})" if len(value) > 8 else "")
    return str(value)


def summary_lines(values: Mapping[str, Any]) -> list[str]:
    """The same as aligned lines."""
    rows = list(summary_rows(values))
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in rows]


def run_lines(summary: Mapping[str, Any]) -> list[str]:
    """The figures of a training run's summary, then in words what it learned and what is remarkable about it."""
    lines = summary_lines({name: value for name, value in summary.items() if name not in ("learned", "remarks")})
    lines += [f"  {summary['learned']}"] if "learned" in summary else []
    return lines + [f"  note: {remark}" for remark in summary.get("remarks", ())]


def having_word(entries: Iterable[EntryT], word: str | None, text_of: Callable[[EntryT], str]) -> list[EntryT]:
    """The entries of a list whose text has a word in it, whatever its case; all of them without a word.

    Args:
        entries: what there is.
        word: the word, or a part of one; None chooses all.
        text_of: gives the text of an entry.

    Raises:
        InputError: no entry has the word.
    """
    found = [entry for entry in entries if word is None or word.lower() in text_of(entry).lower()]
    if not found:
        raise InputError(f"nothing in the list has '{word}'", fix="give a shorter word, or none to see the whole list")
    return found


def _from_here(path: Path) -> str:
    """A path as seen from the working directory if it lies below it, else as it is."""
    try:
        below = os.path.relpath(path)
    except FileNotFoundError:
        # The working directory was removed meanwhile, which is no concern of what was made.
        return str(path)
    return str(path) if below.startswith("..") else below


def command_text(arguments: Sequence[str | Path]) -> str:
    """Arguments as one line for a shell; tokens and passwords are hidden."""
    return shlex.join(hide_arguments([str(argument) for argument in arguments]))


def fit_to_terminal(text: str) -> str:
    """A text for standard error, its lines broken between words where that is a terminal."""
    if not sys.stderr.isatty():
        return text
    width = fitting.width_of(sys.stderr)
    return "\n".join(part for line in text.split("\n") for part in fitting.wrapped(line, width))


def hint(text: str) -> None:
    """Print a remark on standard error, set back in colour."""
    typer.secho(fit_to_terminal(visible(text)), err=True, dim=True, color=_colour())


def show_error(what: str, *, where: str | None = None, fix: str | None = None) -> None:
    """Print an error on standard error: what was found, where, what to do next."""
    prefix = "" if rank() == 0 else f"[rank {rank()}] "
    typer.secho(f"{prefix}error: ", err=True, nl=False, fg=typer.colors.RED, bold=True, color=_colour())
    # Of several problems each has a line; any other line in a message is not ours.
    _echo_after(
        f"{prefix}error: ", message(_NEXT_PROBLEM.join(map(visible, hide(what).split(_NEXT_PROBLEM)))), indent=2
    )
    for name, line in (("where:", where), ("fix:", fix)):
        if line:
            typer.secho(f"  {name:<6} ", err=True, nl=False, dim=True, color=_colour())
            _echo_after(f"  {name:<6} ", message(visible(hide(line))), indent=4)


def _echo_after(start: str, text: str, *, indent: int) -> None:
    """Print on standard error what follows ``start``, which stands there already."""
    if not sys.stderr.isatty():
        typer.echo(text, err=True)
        return
    first, *others = text.split("\n")
    width = fitting.width_of(sys.stderr)
    lines = fitting.wrapped(start + first, width, indent=indent)
    lines[0] = lines[0].removeprefix(start.rstrip()).lstrip()
    lines += [part for line in others for part in fitting.wrapped(line, width, indent=indent + 2)]
    typer.echo("\n".join(lines), err=True)


def show_ogpsa_error(error: OgpsaError) -> None:
    """Print an error that is meant for the user."""
    show_error(error.what, where=error.where, fix=error.fix)


def silence_broken_output() -> bool:
    """Whether standard output's reader is gone (``| head``); if so, nothing more is written to it."""
    if _reader_is_gone:
        return True
    if _is_broken(sys.stdout):
        # The interpreter flushes standard output again at exit, which would print an error.
        _discard(sys.stdout.fileno())
        return True
    return False
