"""``ogpsa merge``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.commands.merge import SweepResult
    from pipelines.configs.merge import MergeConfig
    from pipelines.merging.layer_records import LayerRecord
    from pipelines.merging.making import Merged, MergeResult

_MAX_ROWS = 64


def execute(config: MergeConfig) -> int:
    """Merge and print what was done to each layer."""
    from ogpsa_cli import console
    from pipelines.commands import merge

    result = merge.run(config)
    if isinstance(result, merge.SweepResult):
        return _finish_sweep(result)
    _show(result)
    details = [f"unpaired: {text}" for text in result.unpaired]
    if len(result.merged) > 1:
        details += [_line(merged) for merged in result.merged]
    then = ["ogpsa", "inspect", str(result.merged[0].path)]
    if config.output != "report":
        then = ["ogpsa", "evaluate", str(result.merged[0].path), "--suite", "SUITE", "--out", "RESULTS"]
    console.finished("merged", result, console.command_text(then), details=details)
    return 0


def _finish_sweep(result: SweepResult) -> int:
    """Print the curve, and the command that would make the chosen mix."""
    from rich.table import Table

    from ogpsa_cli import console

    heading, *rows = result.table
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold yellow")
    for name in heading:
        table.add_column(console.text(name), justify="right")
    for cells in rows:
        table.add_row(*(console.text(cell) for cell in cells))
    console.show(table)
    then = result.apply or ["ogpsa", "inspect", str(result.path)]
    console.finished("curve", result, console.command_text(then), details=result.words)
    return 0


def _line(merged: Merged) -> str:
    summary = merged.manifest.summary
    repaired = sum(record.is_repaired for record in merged.records)
    return (
        f"{merged.path}: threshold {summary.get('threshold', 0):.5g}, {repaired} of {summary['layers']} layers repaired"
    )


def _show(result: MergeResult) -> None:
    """Print one row for each layer of the first result, or one for each type of module if the model is large."""
    from rich.table import Table

    from ogpsa_cli import console

    records = [record for record in result.merged[0].records if record.action != "copied"]
    rows = [_cells(record) for record in records] if len(records) <= _MAX_ROWS else _by_type(records)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold yellow")
    table.add_column("layer" if len(records) <= _MAX_ROWS else "modules")
    for name in ("rho", "done", "|fine-tuned|", "|safe|", "|merged|", "rank", "error"):
        table.add_column(name, justify="left" if name == "done" else "right")
    for cells, is_repaired in rows:
        table.add_row(*(console.text(cell, "" if is_repaired else "dim") for cell in cells))
    console.show(table)


def _cells(record: LayerRecord) -> tuple[list[str], bool]:
    ranks = [str(rank) for rank in (record.rank_finetuned, record.rank_safe) if rank is not None]
    rank = "+".join(ranks) + (f" → {record.rank_merged}" if record.rank_merged is not None else "")
    norms = (record.norm_finetuned, record.norm_safe, record.norm_merged)
    cells = [record.layer, _number(record.rho, ".4f"), record.action, *(_number(norm, ".3g") for norm in norms), rank]
    return [*cells, _number(record.error, ".1e")], record.is_repaired


def _by_type(records: list[LayerRecord]) -> list[tuple[list[str], bool]]:
    rows = []
    for kind in dict.fromkeys(record.module_type for record in records):
        group = [record for record in records if record.module_type == kind]
        repaired = sum(record.is_repaired for record in group)
        rhos = sorted(record.rho for record in group if record.rho is not None)
        spread = f"{rhos[0]:.4f} to {rhos[-1]:.4f}" if rhos else ""
        norms = [
            _mean([getattr(record, name) for record in group])
            for name in ("norm_finetuned", "norm_safe", "norm_merged")
        ]
        ranks = sorted({record.rank_merged for record in group if record.rank_merged is not None})
        errors = [record.error for record in group if record.error is not None]
        cells = [kind, spread, f"{repaired} of {len(group)} repaired", *norms]
        cells += [", ".join(map(str, ranks)), _number(max(errors, default=None), ".1e")]
        rows.append((cells, repaired > 0))
    return rows


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3g}" if known else ""


def _number(value: float | None, layout: str) -> str:
    return "" if value is None else format(value, layout)
