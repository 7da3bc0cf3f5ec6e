"""One evaluation against a baseline on the same items: differences, and which items changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.errors import InputError
from pipelines.evaluation.contract.results import read_results
from pipelines.reporting.figures import Figure, collect_figures
from pipelines.reporting.paired import Comparison, compare_with_start, stored_pairs
from pipelines.reporting.runs import Run, read_runs

BASELINE = "baseline"


@dataclass(frozen=True)
class Changed:
    """The items of a figure that changed.

    Attributes:
        comparison: the comparison of the figure.
        raised: ids of items whose score went up.
        lowered: ids of items whose score went down.
    """

    comparison: Comparison
    raised: tuple[str, ...]
    lowered: tuple[str, ...]


def check_in_common(baseline: Path, suites: Collection[str]) -> None:
    """Refuse, before any work, a baseline that will have no suite in common with an evaluation.

    Args:
        baseline: results of another model.
        suites: the suites to be measured, by their name in results (``prompts/mine``) or its first part (``prompts``).

    Raises:
        InputError: there are no results, or none of these suites is among them.
        ArtifactError: the results do not verify.
    """
    there = [suite.suite for suite in read_results(baseline).suites]
    if not any(name in suites or name.partition("/")[0] in suites for name in there):
        raise InputError(
            f"the baseline '{baseline}' has figures of {', '.join(there)}, and this is about {', '.join(suites)}",
            fix="evaluate the baseline with the same suites",
        )


def compare_with_baseline(baseline: Path, results: Path, *, name: str, resamples: int, seed: int) -> list[Changed]:
    """Every figure that both evaluations have.

    Args:
        baseline: results of the one.
        results: results of the other.
        name: the name of the other evaluation, for the table.
        resamples: the number of resamples that the bootstrap draws.
        seed: the seed of the bootstrap.

    Raises:
        InputError: settings are unlike, with all differences; or they have no figure in common.
        ArtifactError: results do not verify, or stored items are not those of the figures.
    """
    start, run = read_runs([f"{BASELINE}={baseline}", f"{name}={results}"])
    figures, _ = collect_figures([start, run], start=start, details=True, unlike="refuse")
    comparisons = compare_with_start([start, run], start, figures, resamples=resamples, seed=seed)
    if not comparisons:
        raise InputError(
            f"'{baseline}' and '{results}' have no figure in common",
            fix="evaluate the baseline with the same suites",
        )
    return [Changed(found, *_changed(found.figure, start, run)) for found in comparisons]


def _changed(figure: Figure, start: Run, run: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first, second = figure.cells
    assert first is not None
    assert second is not None
    pairs = stored_pairs(figure.suite, first, second, start, run)
    if pairs is None:
        return (), ()
    both = list(zip(pairs.start, pairs.run, strict=True))
    return (
        tuple(later.id for earlier, later in both if later.score > earlier.score),
        tuple(later.id for earlier, later in both if later.score < earlier.score),
    )


def flip_lines(changes: Sequence[Changed], *, most: int = 12) -> list[str]:
    """The items that flipped, by figure; of many the first ones."""
    lines = []
    for changed in changes:
        if changed.comparison.flips is not None:
            for arrow, ids in (("0 → 1", changed.raised), ("1 → 0", changed.lowered)):
                if ids:
                    more = f" and {len(ids) - most} more" if len(ids) > most else ""
                    lines.append(f"{changed.comparison.figure.key}, {arrow}: {', '.join(ids[:most])}{more}")
    return lines
