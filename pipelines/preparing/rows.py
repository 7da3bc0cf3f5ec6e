"""Writes the rows of a prepared data set, and counts which rows of the source were kept, and why others were not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError
from data_registry.formats.columns import without
from data_registry.formats.layout import Layout, extra_of
from data_registry.preparing.arrow_folder import ArrowFolder, Staging
from data_registry.preparing.reading import RowReader
from data_registry.preparing.selection import REJECTED, Draw, RejectedFile, Selection
from data_registry.schema import DUPLICATE, REASONS, Task, arrow_schema
from data_registry.sources.graded_samples import GradedSamples
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.parallel import ordered_map
from pipelines.core.progress import Progress
from pipelines.preparing.request import Request, format_description
from pipelines.preparing.token_check import TokenCheck

if TYPE_CHECKING:
    import pyarrow as pa


def write_rows(
    writer: ArtifactWriter,
    request: Request,
    config: PrepareDataConfig,
    layout: Layout,
    task: Task,
    check: TokenCheck | None,
) -> None:
    """Read, check, select and write all rows of the source; the summary counts the outcomes.

    A row is read by ``RowReader`` in a worker, selected by ``Selection``, and written by ``ArrowFolder``: at once, or
    after ``Staging`` if a number of rows is drawn, because which rows are drawn is known only when all have been read.

    Args:
        writer: the writer of the artifact; it takes the rows, the rejected rows and the summary.
        request: the source, and how many of its rows are wanted.
        config: the options of the command, of which those for selection and checks are used.
        layout: the layout of the source's rows.
        task: the task that the rows are made into rows for.
        check: what rows are checked with as tokens; None if they are not.

    Raises:
        InputError: too many rows cannot be used, no row is left, or fewer rows are left than were asked for.
    """
    reader = RowReader(
        layout,
        task,
        where=request.where,
        system=config.system,
        part=config.split,
        heldout_fraction=config.heldout_fraction,
        check=check,
        ignore=request.ignore,
    )
    extra = extra_of(without(layout, request.ignore), task)
    schema, entry = arrow_schema(task, extra), request.entry
    about = {} if entry is None else entry.model_dump(include={"description", "licence", "citation", "homepage"})
    draw = None if request.num_samples is None else Draw(request.num_samples, config.seed)
    selection = Selection(draw)
    with ArrowFolder(writer.path, schema, **about) as folder, RejectedFile(writer.path / REJECTED) as rejected:
        staging = None if draw is None else Staging(writer.path / ".staging", schema)
        keep = folder.write if staging is None else staging.write
        _read_all(reader, request, config, selection, rejected, keep)
        selection.judge(request.source.name, config.max_dropped, rejected.examples)
        if draw is not None and staging is not None:
            numbers = draw.drawn()
            _check_enough(len(numbers), request)
            selection.counts.not_drawn = selection.usable - len(numbers)
            for batch in staging.select(numbers):
                folder.write(batch)
        folder.finish()
        selection.counts.kept = folder.num_rows
    writer.summary = _summarise(request, layout, task, selection)
    if extra:
        writer.summary["extra_columns"] = list(extra)
    if isinstance(request.source, GradedSamples):
        writer.summary["questions"] = request.source.account


def _read_all(
    reader: RowReader,
    request: Request,
    config: PrepareDataConfig,
    selection: Selection,
    rejected: RejectedFile,
    keep: Callable[[pa.RecordBatch], None],
) -> None:
    with (
        Progress("preparing", total=request.source.num_rows, unit="rows") as progress,
        closing(ordered_map(reader, request.source.chunks(), num_workers=config.num_workers)) as outcomes,
    ):
        for outcome in outcomes:
            kept, left_out = selection.select(outcome)
            for rejection in left_out:
                rejected.write(rejection)
            if kept.num_rows:
                keep(kept)
            if selection.is_hopeless and config.max_dropped < 1:
                selection.judge(request.source.name, config.max_dropped, rejected.examples)
            progress.advance(outcome.num_read)


def _check_enough(num_drawn: int, request: Request) -> None:
    if request.num_samples is not None and num_drawn < request.num_samples:
        raise InputError(
            f"'{request.source.name}' has {num_drawn} usable rows, fewer than the {request.num_samples} asked for",
            fix=f"use --num-samples {num_drawn}, or leave it out for all rows",
        )


def _summarise(request: Request, layout: Layout, task: Task, selection: Selection) -> dict[str, Any]:
    """The summary of the data set for the manifest."""
    entry, counts = request.entry, selection.counts
    summary: dict[str, Any] = {
        "task": task,
        "rows": counts.kept,
        "counts": asdict(counts),
        "reasons": {reason: REASONS[reason] for reason in counts.dropped},
        "format": format_description(layout),
        "source": request.source.name,
    }
    if counts.duplicates:
        summary["reasons"][DUPLICATE] = REASONS[DUPLICATE]
    if selection.unused:
        summary["unused_columns"] = dict(selection.unused.most_common())
    absent = [name for name in request.ignore if name not in selection.ignored]
    if absent:
        summary["absent_columns"] = absent
    if entry is not None:
        summary |= {
            "entry": entry.name,
            "licence": entry.licence,
            "citation": entry.citation,
            "homepage": entry.homepage,
        }
    return summary
