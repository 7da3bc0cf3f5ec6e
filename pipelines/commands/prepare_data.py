"""The work of ``ogpsa prepare-data``: rows of a source in normal form, selected, and written as an artifact."""

from __future__ import annotations

from dataclasses import dataclass

from data_registry.prepared import KIND, prepared_table
from data_registry.preparing.selection import Counts
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.core.making import Made, Wanted, find, make
from pipelines.preparing.request import (
    choose_layout,
    format_description,
    look_at_columns,
    look_at_questions,
    open_request,
)
from pipelines.preparing.rows import write_rows
from pipelines.preparing.token_check import (
    PreviewRow,
    TokenCheck,
    limits_for,
    preview_rows,
    tokenizer_inputs,
    tokenizer_of,
)


@dataclass(frozen=True)
class PrepareDataResult(Made):
    """The prepared data set.

    Attributes:
        counts: how many rows were read, dropped, kept and so on.
        preview: the first rows, each as pieces of text with a flag that says whether the piece is trained; a preference
            row gives first the chosen, then the rejected conversation.
    """

    counts: Counts
    preview: list[PreviewRow]


def run(config: PrepareDataConfig) -> PrepareDataResult:
    """Prepare the data set that ``config`` describes, or find it prepared.

    Raises:
        OgpsaError: a source, row or option cannot be used; the message says which and what to do.
    """
    assert config.out is not None, "the configuration is checked for it"
    request = open_request(config)
    tokenizer = tokenizer_of(config)
    limits = limits_for(config)
    inputs = [*request.inputs(), *tokenizer_inputs(config, tokenizer, limits)]
    wanted = Wanted(config.out, KIND, config, inputs, overwrite=config.overwrite)
    made = find(wanted)
    if made is None:
        layout, task = choose_layout(request, config)
        check = None if tokenizer is None else TokenCheck(tokenizer, config.max_length, limits, config.drop_too_long)
        made = make(wanted, lambda writer: write_rows(writer, request, config, layout, task, check))
    # Whether the data set was found or made, this checks that its rows can be read.
    prepared_table(made.path)
    counts = Counts(**made.manifest.summary["counts"])
    shown = preview_rows(config.out, config.preview, tokenizer) if tokenizer is not None else []
    return PrepareDataResult(made.path, made.manifest, made.up_to_date, counts, shown)


def _length_text(config: PrepareDataConfig) -> str:
    if config.tokenizer is None:
        return "not checked: there is no --tokenizer"
    if config.max_length is None:
        return f"counted in tokens of {config.tokenizer}"
    what = "longer rows are left out" if config.drop_too_long else "longer rows are cut in training"
    return f"at most {config.max_length} tokens of {config.tokenizer}; {what}"


def plan(config: PrepareDataConfig) -> list[tuple[str, str]]:
    """What :func:`run` would do, for ``--dry-run``; reads the first rows only.

    Raises:
        OgpsaError: as for :func:`run`, as far as the first rows show it.
    """
    if config.source is None:
        return []
    request = open_request(config)
    layout, task = choose_layout(request, config)
    tokenizer_of(config)
    size = "" if request.source.num_rows is None else f", {request.source.num_rows} rows"
    rows = [("source", f"{request.location.kind} {request.source.name}{size}"), ("format", format_description(layout))]
    if request.entry is not None:
        rows.append(("licence", request.entry.licence))
    rows += [("task", task), *look_at_columns(request, layout, task)]
    if request.where:
        rows.append(("only", ", ".join(f"{column} = {value}" for column, value in request.where.items())))
    if config.split != "all":
        rows.append(("split", f"{config.split}, {config.heldout_fraction:g} of the questions held out"))
    rows.append(("rows", "all" if request.num_samples is None else f"{request.num_samples}, seed {config.seed}"))
    rows += look_at_questions(request)
    rows.append(("length", _length_text(config)))
    rows.append(("output", str(config.out) if config.out else "none: --out is missing"))
    return rows
