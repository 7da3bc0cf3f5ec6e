"""``ogpsa evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipelines.configs.evaluate import EvaluateConfig
    from pipelines.evaluation.contract.results import Results, SuiteResults
    from pipelines.reporting.baseline import Changed


def execute(config: EvaluateConfig) -> int:
    """Evaluate and print the figures."""
    from ogpsa_cli import console
    from pipelines.commands import evaluate
    from pipelines.core.job import rank
    from pipelines.evaluation.request import download

    if config.list_suites:
        _list_suites(config.model)
        return 0
    if config.download_only:
        rows = download(config)
        for name, text in rows if rank() == 0 else ():
            console.say(f"here: {name}, {text}")
        return 0
    result = evaluate.run(config)
    if rank() == 0:
        _show(result.results)
        _show_trust(result.results)
        _show_judges(result.path)
        _show_changes(evaluate.compare(config, result))
    console.finished("results", result, console.command_text(["ogpsa", "inspect", str(result.path)]))
    return 0


def _list_suites(word: str | None) -> None:
    from rich.table import Table

    from ogpsa_cli import console
    from pipelines.evaluation.registry import suite_rows

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold yellow")
    for heading in ("suite", "what it is"):
        table.add_column(heading)
    for name, summary in console.having_word(suite_rows(), word, " ".join):
        table.add_row(console.text(name, "bold cyan"), console.text(summary))
    console.show(table)


def _show(results: Results) -> None:
    """One line for each figure: a single model's many figures do not fit into one row."""
    from rich.table import Table

    from ogpsa_cli import console
    from pipelines.reporting.table import format_metric

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold yellow")
    table.add_column(console.text(results.run))
    table.add_column("figure [95 % interval]", justify="right")
    table.add_column("better")
    table.add_column("items", justify="right")
    for suite in results.suites:
        table.add_row(console.text(suite.suite, "bold cyan"))
        for metric in suite.metrics:
            name = f"  {metric.name.replace('_', '-')}" + (" %" if metric.unit == "share" else f" ({metric.unit})")
            style = "" if metric.headline else "dim"
            better = "higher" if metric.higher_is_better else "lower"
            cells = (name, format_metric(metric), better, str(metric.num_items))
            table.add_row(*(console.text(cell, style) for cell in cells))
        for name, text in _counted(suite).items():
            table.add_row(console.text(f"  {name}: {text}", "dim"))
    console.show(table)


def _counted(suite: SuiteResults) -> dict[str, str]:
    """The outcomes of the items, one line per group, such as ``180 full refusal, 20 unsure``."""
    lines: dict[str, list[str]] = {}
    for name, count in suite.counts.items():
        group, _, outcome = name.rpartition("/")
        if count:
            lines.setdefault(group or "of these", []).append(f"{count} {outcome.replace('_', ' ')}")
    return {group: ", ".join(parts) for group, parts in lines.items()}


def _show_judges(path: Path) -> None:
    """Print how far two judges agree, where there were two."""
    from ogpsa_cli import console
    from ogpsa_cli.commands.judge import grid_table
    from pipelines.evaluation.judge_notes import agreement_of_judges

    for prose, grid in agreement_of_judges(path):
        console.write()
        for line in prose:
            console.say(line)
        if console.is_verbose():
            console.show(grid_table(grid))


def _show_changes(changes: Sequence[Changed]) -> None:
    """Print the differences from the baseline and the items that flipped."""
    from ogpsa_cli import console
    from ogpsa_cli.commands.report import text_table
    from pipelines.reporting.baseline import flip_lines
    from pipelines.reporting.tables import comparison_table

    if not changes:
        return
    console.write()
    console.show(text_table(comparison_table([changed.comparison for changed in changes])))
    for line in flip_lines(changes):
        console.say(line)


def _show_trust(results: Results) -> None:
    """Print how far the built-in judge agrees with people, where its figures are shown and more is asked for."""
    from ogpsa_cli import console
    from pipelines.evaluation.judge_notes import agreement_with_people

    lines = agreement_with_people(results)
    if lines and not console.is_verbose():
        console.say("How far the judge agrees with people:  --verbose shows it.", dim=True)
    elif lines:
        console.write()
        console.say("The judge's agreement with people (XSTest's labels; judged model not seen in fitting):", dim=True)
        for line in lines:
            console.say(f"  {line}", dim=True)
