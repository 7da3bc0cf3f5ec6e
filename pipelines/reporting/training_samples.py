"""Samples from training: what a model answered to a few prompts as it learned, as books for the page."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.reporting.behind import SAMPLES_FILE, TrainingRun, is_number, read_lines
from pipelines.reporting.books import Book, Cell, Row

_FINISHES = {"length": "cut off at the limit of tokens", "too_long": "the prompt fills the context"}


def sample_books(runs: Sequence[tuple[str, TrainingRun]], *, most: int | None) -> tuple[list[Book], list[str]]:
    """A book for each training run that wrote samples, and what could not be shown of them.

    Args:
        runs: each with the label that the page gives it.
        most: the number of answers that all books may hold together; None: all.
    """
    books: list[Book] = []
    notes: list[str] = []
    room = most
    for label, run in runs:
        if room == 0:
            break
        try:
            lines, damaged = read_lines(run.path / SAMPLES_FILE)
        except FileNotFoundError:
            continue
        except OSError as error:
            notes.append(f"The samples of {label} cannot be read: {error.strerror}.")
            continue
        samples: dict[str, dict[int, Cell]] = {}
        for line in lines:
            found = _sample(line)
            if found is None:
                damaged += 1
            else:
                # A step that was sampled twice, after a resumption, counts as it was last.
                prompt, step, cell = found
                samples.setdefault(prompt, {})[step] = cell
        if damaged:
            notes.append(f"{damaged} line{'s' if damaged > 1 else ''} of the samples of {label} cannot be read.")
        if samples:
            shown = _within(samples, room)
            if len(shown) < len(samples):
                notes.append(f"{len(shown)} of {len(samples)} prompts of the samples of {label} are shown.")
            books.append(_book(label, shown))
            room = None if room is None else max(0, room - sum(map(len, shown.values())))
    return books, notes


def _sample(line: dict[str, object]) -> tuple[str, int, Cell] | None:
    """Prompt, step and answer of a line; None where it is none."""
    step, prompt, answer = line.get("step"), line.get("prompt"), line.get("answer")
    if not is_number(step) or not isinstance(prompt, str) or not isinstance(answer, str):
        return None
    tokens = line.get("tokens")
    parts = [_FINISHES.get(str(line.get("finish")), ""), f"{tokens} tokens" if is_number(tokens) else ""]
    note = "; ".join(part for part in parts if part)
    return prompt, int(step), Cell(0, answer, note=note)


def _within(samples: dict[str, dict[int, Cell]], room: int | None) -> dict[str, dict[int, Cell]]:
    """The first prompts whose answers there is room for; one at least."""
    shown: dict[str, dict[int, Cell]] = {}
    count = 0
    for prompt, cells in samples.items():
        count += len(cells)
        if room is not None and count > room and shown:
            break
        shown[prompt] = cells
    return shown


def _book(label: str, samples: dict[str, dict[int, Cell]]) -> Book:
    steps = sorted({step for cells in samples.values() for step in cells})
    place = {step: column for column, step in enumerate(steps)}
    rows = [
        Row(
            "", f"prompt {number}", "", prompt, "",
            tuple(Cell(place[step], cell.answer, note=cell.note) for step, cell in sorted(cells.items())),
        )
        for number, (prompt, cells) in enumerate(samples.items(), start=1)
    ]  # fmt: skip
    return Book(label, "samples", tuple(f"step {step}" for step in steps), tuple(rows))
