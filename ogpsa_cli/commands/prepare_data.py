"""``ogpsa prepare-data``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.text import Text

    from data_registry.core.manifest import Manifest
    from data_registry.preparing.selection import Counts
    from data_registry.registry.entry import Entry
    from pipelines.configs.prepare_data import PrepareDataConfig

# Names of columns are foreign text: a few of them, and not more than a line of each, are shown.
_NAMES: Final = 12
_NAME_WIDTH: Final = 60
# The suite that takes any data set of a task.
_MEASURES: Final = {"sft": "reference-loss", "preference": "preference"}


def execute(config: PrepareDataConfig) -> int:
    """Prepare the data set, or show the registry."""
    from ogpsa_cli import console

    if config.list:
        _list(config)
        return 0
    if config.describe:
        _describe(config)
        return 0
    from pipelines.commands import prepare_data

    result = prepare_data.run(config)
    _show_preview(result.preview)
    details = [*_count_lines(result.counts, result.manifest), *_name_lines(result.manifest)]
    hints = _next(config, str(result.path), result.manifest.summary.get("task"))
    console.finished("data set", result, *hints, details=details)
    return 0


def _next(config: PrepareDataConfig, path: str, task: str | None) -> list[str]:
    from ogpsa_cli import console

    if task in _MEASURES and _is_for_measuring(config):
        words = ["ogpsa", "evaluate", "MODEL", "--suite", _MEASURES[task], "--data", path, "--out", "RESULTS"]
        return [console.command_text(words)]
    recommended = ["--preset", "recommended", "--out", "RUN"]
    if task == "preference":
        words = ["ogpsa", "train-dpo", "MODEL", "--data", path, "--anchor", "GENERAL", *recommended]
        return [console.command_text(words)]
    if task != "sft":
        return []
    learned = ["ogpsa", "train-sft", "MODEL", "--data", path, "--anchor", "GENERAL", *recommended]
    kept = ["ogpsa", "train-sft", "MODEL", "--data", "SAFETY", "--anchor", path, *recommended]
    return [
        console.command_text(learned) + "    # if this is to be learned",
        console.command_text(kept) + "    # if this must not be lost",
    ]


def _is_for_measuring(config: PrepareDataConfig) -> bool:
    """Whether the source is by its name, or by its split, one to measure on, and not to be trained on."""
    names = [str(config.source or ""), *(part for part in (config.source_split,) if part)]
    return any(re.search(r"(?:^|[-_])(?:test|validation|dev)(?:[-_\[]|$)", name) for name in names)


def _list(config: PrepareDataConfig) -> None:
    from rich.table import Table

    from data_registry.registry.listing import list_entries
    from ogpsa_cli import console

    table = Table(box=None, show_header=True, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold yellow")
    for heading in ("name", "task", "what it is"):
        table.add_column(heading)
    # A word stands where the source would: it chooses among the entries.
    for entry in console.having_word(
        list_entries(config.registry), config.source, lambda entry: f"{entry.name} {entry.task} {entry.description}"
    ):
        text = console.text(entry.description)
        if entry.problem:
            text.append_text(console.text(f" Cannot be used: {entry.problem}", "red"))
        table.add_row(console.text(entry.name, "bold cyan"), console.text(entry.task), text)
    console.show(table)
    console.hint("more on one:  ogpsa prepare-data NAME --describe")


def _describe(config: PrepareDataConfig) -> None:
    from rich.table import Table
    from rich.text import Text

    from data_registry.registry.listing import describe
    from ogpsa_cli import console

    entry = describe(str(config.source), config.registry)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=False)
    for name, value in _entry_rows(entry):
        table.add_row(Text(name, style="dim"), console.text(value))
    console.show(Text.assemble(console.text(entry.name, "bold cyan"), console.text("  " + entry.description)), table)
    if not entry.problem:
        console.hint(f"prepare it:  ogpsa prepare-data {entry.name} --out data/{entry.name}")


def _entry_rows(entry: Entry) -> Iterator[tuple[str, str]]:
    """The known properties of an entry as pairs of name and text; unknown ones are left out."""
    source = entry.source
    place = entry.location()
    settings = {"subset": source.subset, "folder": source.data_dir, "split": source.split, "revision": source.revision}
    yield "task", entry.task
    yield "source", f"{place.kind} {place.name}"
    yield from ((name, value) for name, value in settings.items() if value)
    yield "format", entry.format
    if entry.ignore_columns:
        yield "columns left out", ", ".join(entry.ignore_columns)
    groups = {"columns": entry.columns, "tags": entry.tags, "only rows with": entry.where}
    yield from (
        (name, ", ".join(f"{key}={value}" for key, value in group.items())) for name, group in groups.items() if group
    )
    yield "licence", entry.licence
    for name, value in (("citation", entry.citation), ("homepage", entry.homepage), ("problem", entry.problem)):
        if value:
            yield name, " ".join(value.split())
    yield "defined in", entry.origin


def _count_lines(counts: Counts, manifest: Manifest) -> Iterator[str]:
    """Lines that say how many rows were read, dropped, kept and so on."""
    reasons = manifest.summary.get("reasons", {})
    numbers = [
        (counts.read, f"rows read ({manifest.summary.get('format', 'unknown format')})"),
        *((number, f"dropped as {reason}: {reasons.get(reason, '')}") for reason, number in counts.dropped.items()),
        (counts.duplicates, "duplicates left out"),
        (counts.undesired, "left out: marked as answers that must not be learnt"),
        (counts.filtered, "taken out by a filter"),
        (counts.other_split, "belong to the other split"),
        (counts.not_drawn, "usable, but not drawn (--num-samples)"),
        (counts.kept, f"rows kept for {manifest.summary.get('task')}"),
        (counts.cut, "of the usable rows are cut by --max-length"),
        (counts.too_long, "left out, since they are too long (--drop-too-long)"),
        (
            counts.beyond_positions,
            "of the usable rows are longer than the model's positions: --drop-too-long leaves them out",
        ),
    ]
    width = len(f"{counts.read:,}")
    yield from (f"  {number:>{width},} {text}" for number, text in numbers if number)
    yield from _question_lines(manifest)
    if not any(record.role == "tokenizer" for record in manifest.inputs):
        yield "  lengths in tokens were not checked: --tokenizer MODEL does that"


def _question_lines(manifest: Manifest) -> Iterator[str]:
    """Lines that say what became of the questions of samples, and of their answers; none for other sources."""
    account: dict[str, int] = manifest.summary.get("questions", {})
    if not account:
        return
    only_wrong = account["only_wrong"]
    gold = account["with_reference"]
    wrong = f"{gold:,} of them paired with the data's own answer" if gold else "left out (--missing gold)"
    yield f"  {account['questions']:,} questions:"
    numbers = [
        (account["with_pairs"], "have right and wrong answers, and gave pairs"),
        (account["only_right"], "have only right answers, and gave none"),
        (only_wrong, f"have only wrong answers: {wrong}"),
        (account["neither"], "have no answer that could be used"),
    ]
    width = len(f"{account['questions']:,}")
    yield from (f"    {number:>{width},} {text}" for number, text in numbers)
    answers = [
        (account["duplicates"], "answers left out: the same question had the same answer before"),
        (account["cut_off"], f"answers cut off at the length limit: {account['right_cut_off']:,} right ones left out"),
        (account["unsure"], "answers left out: the judge could not tell"),
    ]
    yield from (f"  {number:,} {text}" for number, text in answers if number)


def _name_lines(manifest: Manifest) -> Iterator[str]:
    """Lines that name the columns that no one uses, and those to be ignored that are not there."""
    unused: dict[str, int] = manifest.summary.get("unused_columns", {})
    if unused:
        named = [
            f"{_short(name)} ({number:,} row{'s' if number > 1 else ''})"
            for name, number in list(unused.items())[:_NAMES]
        ]
        more = f" and {len(unused) - _NAMES} more" if len(unused) > _NAMES else ""
        yield f"  not used: {', '.join(named)}{more}"
        yield "    if one belongs to a row, say what it is:  --set columns.FIELD=COLUMN"
        yield f"    if not:  --ignore-columns {','.join(_short(name) for name in list(unused)[:_NAMES])}"
    absent = manifest.summary.get("absent_columns", [])
    if absent:
        yield f"  --ignore-columns names what no row has: {', '.join(absent)}"


def _short(name: str) -> str:
    name = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
    return name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 3] + "..."


def _show_preview(rows: Sequence[Sequence[tuple[str, bool]]]) -> None:
    if not rows:
        return
    from rich.text import Text

    from data_registry.core.visible import visible
    from ogpsa_cli import console

    how = "in green" if console.is_terminal() else "in «»"
    console.show(Text(f"{len(rows)} conversations as the model sees them, what is trained {how}:", style="bold"))
    # rich would drop some control characters without a word.
    shown = [[(visible(text, block=True), is_trained) for text, is_trained in row] for row in rows]
    for row in shown:
        console.show(_coloured(row) if console.is_terminal() else _bracketed(row), "")


def _coloured(row: Sequence[tuple[str, bool]]) -> Text:
    from rich.text import Text

    return Text.assemble(*((text, "green" if is_trained else "dim") for text, is_trained in row))


def _bracketed(row: Sequence[tuple[str, bool]]) -> Text:
    from rich.text import Text

    spans = [("".join(text for text, _ in pieces), trained) for trained, pieces in groupby(row, itemgetter(1))]
    return Text("".join(f"«{text}»" if is_trained else text for text, is_trained in spans))
