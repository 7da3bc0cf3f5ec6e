"""What is said of judges beside figures: how far the built-in one agrees with people, and two with each other."""

from __future__ import annotations

from pathlib import Path

from pipelines.evaluation.contract.grid import Grid, grid_of
from pipelines.evaluation.contract.results import Results
from pipelines.evaluation.contract.verdict import read_verdicts
from pipelines.evaluation.judges.comparing import compare_judges, comparison_lines
from pipelines.evaluation.judges.refusal.agreement import agreement
from pipelines.evaluation.judges.refusal.judge import JUDGE_VERSION


def agreement_with_people(results: Results) -> list[str]:
    """How far the built-in judge agrees with people, wherever results have figures of it; one line for each judge."""
    if any(suite.settings.scoring == f"judge {JUDGE_VERSION}" for suite in results.suites):
        return agreement().lines()
    return []


def agreement_of_judges(path: Path) -> list[tuple[list[str], Grid]]:
    """How two judges agree: for each comparison sentences and the counts of their outcomes; none where one judged.

    Args:
        path: directory of the results.

    Raises:
        ArtifactError: the verdicts cannot be read.
    """
    return [(comparison_lines(found), grid_of(found.confusion)) for found in compare_judges(read_verdicts(path))]
