"""A judgement as lines of text: figures with intervals, agreement with labels, and judges side by side."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.evaluation.contract.grid import Grid, grid_of
from pipelines.evaluation.judges.comparing import JudgeComparison, comparison_lines
from pipelines.judging.results import Cell, JudgeFigures, Judgement, LabelAgreement, Share


def judgement_lines(judgement: Judgement, *, tables: bool) -> list[str | Grid]:
    """All that a screen shows of a judgement: lines, and tables between them; an empty line stands between its parts.

    Args:
        judgement: what was judged.
        tables: with the tables of labels and verdicts, and of the verdicts of two judges.
    """
    lines: list[str | Grid] = [f"{judgement.num_rows} rows of {judgement.source}"]
    if judgement.num_without_answer:
        lines.append(f"{judgement.num_without_answer} without an answer, which are in no figure")
    for found in judgement.judges:
        lines += ["", *_figures(found)]
        if found.labels is not None:
            lines += ["", *_agreement(found.judge, found.labels, table=tables)]
    for pair in judgement.pairs:
        confusion = {(cell.row, cell.column): cell.count for cell in pair.confusion}
        comparison = JudgeComparison(pair.first, pair.second, confusion)
        lines += ["", *comparison_lines(comparison), *([grid_of(confusion)] if tables else [])]
    return lines


def shown(share: Share) -> str:
    """A share in percent, with its interval."""
    return f"{share.value:6.1%} [{share.low:.1%}, {share.high:.1%}]"


def _figures(found: JudgeFigures) -> list[str]:
    width = max(len(share.name) for share in found.figures)
    return [
        f"judge {found.judge}, {found.num_judged} answers",
        *(f"  {_plain(share.name):<{width}}  {shown(share)} of {share.num_items}" for share in found.figures),
    ]


def _agreement(judge: str, labels: LabelAgreement, *, table: bool) -> list[str | Grid]:
    lines: list[str | Grid] = [
        f"agreement of {judge} with {labels.num_items} labels",
        f"  complied or not  {shown(labels.accuracy)}, kappa {_number(labels.kappa)}",
    ]
    if labels.accuracy_where_sure is not None:
        sure = labels.accuracy_where_sure
        lines.append(f"  where it is sure {shown(sure)} of {sure.num_items}")
    if labels.three_class is not None:
        lines.append(f"  three classes    {shown(labels.three_class)}, kappa {_number(labels.kappa_three)}")
    lines += [f"  recall of {_plain(share.name)} {shown(share)} of {share.num_items}" for share in labels.recall]
    if not table:
        return lines
    return [*lines, "  labels (rows) and verdicts (columns)", _grid(labels.confusion)]


def _grid(cells: Sequence[Cell]) -> Grid:
    return grid_of({(cell.row, cell.column): cell.count for cell in cells})


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _number(kappa: float | None) -> str:
    return "undefined" if kappa is None else f"{kappa:.3f}"
