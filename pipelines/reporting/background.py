"""What stands behind the figures of a report: answers, training runs with their logs, lineage, options that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.manifest import Manifest
from pipelines.configs.report import ReportConfig
from pipelines.configs.tools import InspectConfig
from pipelines.inspecting import artifacts
from pipelines.inspecting.lineage import Ancestor, Lineage
from pipelines.reporting.answers import choice_notes, make_book
from pipelines.reporting.behind import Behind, Finder, TrainingRun
from pipelines.reporting.books import Book, pack
from pipelines.reporting.contents import Report
from pipelines.reporting.curves import Group, make_groups
from pipelines.reporting.differences import differences_table
from pipelines.reporting.places import Places
from pipelines.reporting.runs import Source
from pipelines.reporting.tables import TextTable
from pipelines.reporting.training_samples import sample_books


@dataclass(frozen=True)
class ShownSource:
    """Where figures of a run come from: the artifact or file, the command that made it, and its lineage."""

    kind: str
    path: str
    command: tuple[str, ...]
    inputs: tuple[Ancestor, ...]
    manifest: Manifest | None


@dataclass(frozen=True)
class Background:
    """All of it.

    Attributes:
        sources: the sources of each run of the report.
        places: how paths are shown.
        answers: the answers of all runs; None where there are none in the page.
        samples: samples from training, a book for each training run that has some.
        books: both, packed; empty where there are none.
        answer_notes: what is to be known of answers.
        curves: the training curves.
        curve_notes: what is to be known of them: damaged logs, and what is missing.
        differences: in what the runs differ.
    """

    sources: tuple[tuple[ShownSource, ...], ...]
    places: Places
    answers: Book | None
    samples: tuple[Book, ...]
    books: str
    answer_notes: tuple[str, ...]
    curves: tuple[Group, ...]
    curve_notes: tuple[str, ...]
    differences: TextTable

    @property
    def has_books(self) -> bool:
        """Whether there is anything to browse."""
        return bool(self.books)


def look_behind(report: Report, config: ReportConfig) -> Background:
    """Find and read what stands behind the figures.

    Raises:
        ArtifactError: stored answers cannot be read.
    """
    places = Places((source.path for run in report.runs for source in run.sources), config.out)
    seen, finder = Lineage(hashes=False), Finder()
    sources = tuple(tuple(_source(source, seen) for source in run.sources) for run in report.runs)
    behind = [finder.behind([ancestor for source in own for ancestor in source.inputs]) for own in sources]
    names = [run.name for run in report.runs]
    training = _labelled(names, behind, places)
    most = config.most_answers
    book, choices = make_book(report.runs, most=most, harmful=config.harmful_answers)
    used = 0 if book is None else sum(len(row.cells) for row in book.rows)
    samples, sample_notes = sample_books(training, most=None if most is None else max(0, most - used))
    books = [*([book] if book is not None else []), *samples]
    manifests = [next((source.manifest for source in own if source.manifest is not None), None) for own in sources]
    return Background(
        sources=sources,
        places=places,
        answers=book,
        samples=tuple(samples),
        books=pack(books) if books else "",
        answer_notes=(*_answer_notes(report, config, book), *choice_notes(choices, config.answers), *sample_notes),
        curves=tuple(make_groups(training)),
        curve_notes=tuple(_curve_notes(names, behind, training, places)),
        differences=differences_table(names, [found.stages for found in behind], manifests, places),
    )


def _source(source: Source, seen: Lineage) -> ShownSource:
    if not source.is_artifact:
        return ShownSource(source.record.kind, str(source.path.absolute()), (), (), None)
    found = artifacts.inspect(InspectConfig(path=source.path, fast=True), seen)
    command = tuple(found.manifest.command) if found.manifest else ()
    return ShownSource(source.record.kind, str(source.path.absolute()), command, found.inputs, found.manifest)


def _labelled(names: Sequence[str], behind: Sequence[Behind], places: Places) -> list[tuple[str, TrainingRun]]:
    """Every training run once, named by the runs of the report that it ends in, or by where it lies."""
    users: dict[Path, list[str]] = {}
    found: dict[Path, TrainingRun] = {}
    for name, own in zip(names, behind, strict=True):
        for number, stage in enumerate(own.stages):
            found.setdefault(stage.path, stage)
            if number == 0:
                users.setdefault(stage.path, []).append(name)
    return [(", ".join(users.get(path, [])) or f"before: {places.path(str(path))}", run) for path, run in found.items()]


def _answer_notes(report: Report, config: ReportConfig, book: Book | None) -> list[str]:
    if config.most_answers == 0:
        return ["This page was written without answers (--answers none)."]
    if book is None:
        return ["No answers were stored with these results."]
    notes = ["Every prompt with the answers of the runs, their verdicts, and what each verdict rests on."]
    without = [run.name for run in report.runs if not run.items]
    if without:
        notes.append(f"No answers were stored of: {', '.join(without)}.")
    if config.harmful_answers == "covered" and any(cell.is_covered for row in book.rows for cell in row.cells):
        notes.append("Answers to harmful prompts that were not refused are covered until you uncover them.")
    if config.harmful_answers == "left-out":
        notes.append("Answers to harmful prompts that were not refused were left out (--harmful-answers left-out).")
    return notes


def _curve_notes(
    names: Sequence[str], behind: Sequence[Behind], training: Sequence[tuple[str, TrainingRun]], places: Places
) -> list[str]:
    notes = []
    if training:
        notes.append("From the logs of the training runs that the manifests name; points are means over logged steps.")
    missing = [f"{name}: {places.text(text)}" for name, own in zip(names, behind, strict=True) for text in own.missing]
    if missing:
        notes.append(f"Missing: {'; '.join(missing)}.")
    without = [name for name, own in zip(names, behind, strict=True) if not own.stages and not own.missing]
    if without:
        notes.append(f"No training run stands behind: {', '.join(without)}.")
    damaged = [f"{run.num_damaged} of {label}" for label, run in training if run.num_damaged]
    if damaged:
        notes.append(f"Lines of logs that cannot be read: {'; '.join(damaged)}.")
    empty = [label for label, run in training if not run.metrics]
    if empty:
        notes.append(f"Nothing was logged by: {', '.join(empty)}.")
    return notes
