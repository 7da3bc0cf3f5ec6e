"""``ogpsa build-mask``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.build_mask import BuildMaskConfig
    from pipelines.masks.records import TensorRecord

_MAX_ROWS = 64


def execute(config: BuildMaskConfig) -> int:
    """Build the mask and print what it has of each tensor."""
    from ogpsa_cli import console
    from pipelines.commands import build_mask
    from pipelines.masks.records import LAYERS_FILE, read_records

    result = build_mask.run(config)
    _show(read_records(result.path / LAYERS_FILE))
    then = ["ogpsa", "train-dpo", config.model, "--data", "DATA", "--mask", str(result.path), "--mask-at", "gradient"]
    details = console.summary_lines(result.manifest.summary)
    console.finished("mask", result, console.command_text([*then, "--out", "RUN"]), details=details)
    return 0


def _show(records: list[TensorRecord]) -> None:
    """Print one row for each tensor, or one for each type of module if the model is large."""
    from rich.table import Table

    from ogpsa_cli import console

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold yellow")
    table.add_column("parameter" if len(records) <= _MAX_ROWS else "modules")
    for name in ("weights", "selected", "share", "largest score", "median"):
        table.add_column(name, justify="right")
    for cells, is_chosen in _rows(records):
        table.add_row(*(console.text(cell, "" if is_chosen else "dim") for cell in cells))
    console.show(table)


def _rows(records: list[TensorRecord]) -> list[tuple[list[str], bool]]:
    from pipelines.masks.plots import place_of

    if len(records) <= _MAX_ROWS:
        groups = {record.parameter: [record] for record in records}
    else:
        groups = {}
        for record in records:
            groups.setdefault(place_of(record.parameter)[0], []).append(record)
    rows = []
    for name, group in groups.items():
        numel, selected = sum(record.numel for record in group), sum(record.selected for record in group)
        largest = max((record.largest_score for record in group if record.largest_score is not None), default=None)
        median = group[0].score_median if len(group) == 1 else None
        cells = [name, f"{numel:,}", f"{selected:,}", f"{selected / max(1, numel):.2%}"]
        cells += ["" if value is None else f"{value:.3g}" for value in (largest, median)]
        rows.append((cells, selected > 0))
    return rows
