"""``ogpsa chat``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.configs.chat import ChatConfig
    from pipelines.evaluation.answering.chat import Reply, Speaker

_WIDE = 100
"""The terminal width, in columns, from which two answers are shown side by side."""
_HELP = "/reset begins anew, /system TEXT sets the system message, /quit leaves, Ctrl-C stops an answer"
_COMMANDS = ("/reset", "/system", "/quit", "/exit", "/help")


def execute(config: ChatConfig) -> int:
    """Talk until the input ends."""
    from ogpsa_cli import console
    from pipelines.commands import chat

    speakers = chat.run(config)
    is_terminal = sys.stdin.isatty() and console.is_terminal()
    if is_terminal:
        console.hint(_HELP)
    for text in _lines(is_terminal):
        if text in ("/quit", "/exit"):
            break
        if text.startswith("/"):
            _command(speakers, text)
            continue
        if config.each_alone:
            _forget(speakers)
        _answer(speakers, text, is_terminal=is_terminal)
    return 0


def _lines(is_terminal: bool) -> Iterator[str]:
    """The messages, one per line; empty lines are skipped."""
    if is_terminal:
        # Importing readline gives input() line editing and a history of what was typed.
        import readline  # noqa: F401
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    while True:
        try:
            line = input("\n> ") if is_terminal else sys.stdin.readline()
        except EOFError:
            return
        if not is_terminal and not line:
            return
        if line.strip():
            yield line.strip()


def _command(speakers: Sequence[Speaker], text: str) -> None:
    from data_registry.core.documents import suggest
    from ogpsa_cli import console

    name, _, rest = text.partition(" ")
    if name == "/reset":
        _forget(speakers)
        console.hint("a new conversation")
    elif name == "/system":
        for speaker in speakers:
            speaker.system = rest.strip() or None
        _forget(speakers)
        console.hint(f"a new conversation, {'with this' if rest.strip() else 'without'} system message")
    elif name == "/help":
        console.hint(_HELP)
    else:
        console.hint(f"there is no {name}{suggest(name, _COMMANDS)}: {_HELP}")


def _forget(speakers: Sequence[Speaker]) -> None:
    for speaker in speakers:
        speaker.reset()


def _answer(speakers: Sequence[Speaker], text: str, *, is_terminal: bool) -> None:
    from data_registry.core.errors import InputError
    from data_registry.core.visible import visible
    from ogpsa_cli import console

    if not is_terminal:
        for speaker in speakers:
            reply = speaker.answer(text, lambda piece: None)
            name = f"{visible(speaker.name)}\t" if len(speakers) > 1 else ""
            # One line for each answer, from which the answer can be read back.
            console.write_part(name + visible(reply.text.replace("\\", "\\\\")) + "\n")
        return
    try:
        if len(speakers) > 1 and console.terminal().width >= _WIDE:
            _side_by_side(speakers, text)
        else:
            _in_turn(speakers, text)
    except InputError as error:
        # The conversation goes on, since the user can fix this by typing another line.
        console.show_ogpsa_error(error)


def _in_turn(speakers: Sequence[Speaker], text: str) -> None:
    from data_registry.core.visible import visible
    from ogpsa_cli import console

    for speaker in speakers:
        if len(speakers) > 1:
            console.write()
            console.write(visible(speaker.name), dim=True)
        reply = speaker.answer(text, console.write_part)
        if not reply.text.endswith("\n"):
            console.write("" if reply.text else "(nothing)")
        console.hint(_figures(reply))


def _side_by_side(speakers: Sequence[Speaker], text: str) -> None:
    """Show both answers in columns: redrawn while they are generated, then printed in full, however long they are."""
    from rich.live import Live

    from ogpsa_cli import console

    terminal = console.terminal()
    answers = [""] * len(speakers)
    replies: list[Reply] = []
    with Live(_columns(speakers, answers, replies), console=terminal, transient=True, refresh_per_second=12) as live:
        for index, speaker in enumerate(speakers):

            def show(piece: str, index: int = index) -> None:
                answers[index] += piece
                live.update(_columns(speakers, answers, replies))

            replies.append(speaker.answer(text, show))
    terminal.print(_columns(speakers, answers, replies))


def _columns(speakers: Sequence[Speaker], answers: Sequence[str], replies: Sequence[Reply]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from data_registry.core.visible import visible
    from ogpsa_cli import console

    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for speaker in speakers:
        table.add_column(console.text(speaker.name), ratio=1, overflow="fold")
    table.add_row(*(Text(visible(answer, block=True)) for answer in answers))
    table.add_row(*(Text(_figures(reply), style="dim") for reply in replies))
    return table


def _figures(reply: Reply) -> str:
    speed = reply.num_tokens / reply.seconds if reply.seconds > 0 else 0.0
    return f"{reply.num_tokens} tokens, {speed:.0f} a second{', cut off' if reply.is_cut else ''}"
