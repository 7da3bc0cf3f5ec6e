"""A whole report: what is found in the runs, before it is drawn and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_registry.core.errors import ConfigError
from pipelines.configs.report import ReportConfig
from pipelines.reporting.figures import Figure, Unlikeness, choose_figures, collect_figures, make_table
from pipelines.reporting.gain import Gain, average_gains
from pipelines.reporting.paired import Comparison, compare_with_start
from pipelines.reporting.runs import Run, choose_start, read_runs
from pipelines.reporting.table import ResultsTable
from pipelines.reporting.tradeoff import Tradeoff, make_tradeoff


@dataclass(frozen=True)
class Report:
    """Everything that a report says.

    Attributes:
        title: its heading.
        runs: the rows; the starting model first.
        start: the starting model.
        figures: the columns.
        unlikenesses: suites that were measured under several settings.
        benchmarks: the figures that the average gain is over.
        gains: the average gain of every run but the starting model.
        comparisons: the comparisons of every run with the starting model, on the same items.
        tradeoff: the chart; None where safety or capability was not measured.
        table: runs by figures.
    """

    title: str
    runs: tuple[Run, ...]
    start: Run | None
    figures: tuple[Figure, ...]
    unlikenesses: tuple[Unlikeness, ...]
    benchmarks: tuple[Figure, ...]
    gains: tuple[Gain, ...]
    comparisons: tuple[Comparison, ...]
    tradeoff: Tradeoff | None
    table: ResultsTable

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Figures that the average gain does not hold, by the reason."""
        names = {figure.key for figure in self.benchmarks}
        found: dict[str, list[str]] = {}
        for figure in self.figures:
            if figure.headline and figure.apart:
                found.setdefault("other settings", []).append(figure.heading)
            elif figure.headline and figure.key not in names:
                found.setdefault(_why_not(figure), []).append(figure.heading)
        for gain in self.gains:
            for change in gain.changes:
                if change.relative is None:
                    found.setdefault(change.reason, []).append(f"{change.figure.heading} for {gain.run}")
        return found


def read_report(config: ReportConfig) -> tuple[list[Run], Run | None]:
    """The runs of a report, the starting model first.

    Raises:
        ConfigError: ``--start`` is none of the runs.
        InputError: results are missing or cannot be told apart.
        ArtifactError: results do not verify.
    """
    runs = read_runs(config.results)
    if config.start is None:
        return runs, None
    start = choose_start(runs, config.start)
    return [start, *(run for run in runs if run is not start)], start


def make_report(config: ReportConfig, runs: Sequence[Run], start: Run | None) -> Report:
    """Compute everything that the report says.

    Raises:
        ConfigError: a figure that was named does not exist.
        InputError: settings are unlike.
        ArtifactError: stored items are not those of the figures.
    """
    figures, unlikenesses = collect_figures(runs, start=start, details=config.details, unlike=config.unlike)
    benchmarks = choose_figures(figures, config.capability, "capability", "--capability")
    safety = choose_figures(figures, config.safety, "safety", "--safety")
    shares = [figure for figure in benchmarks if figure.unit == "share"]
    if any(figure.unit != "share" for figure in safety):
        raise ConfigError("--safety takes shares: other figures have no place on an axis in per cent")
    gains: list[Gain] = []
    comparisons: list[Comparison] = []
    if start is not None:
        gains = average_gains(runs, start, benchmarks, resamples=config.bootstrap, seed=config.seed)
        comparisons = compare_with_start(runs, start, figures, resamples=config.bootstrap, seed=config.seed)
    return Report(
        title=config.title,
        runs=tuple(runs),
        start=start,
        figures=tuple(figures),
        unlikenesses=tuple(unlikenesses),
        benchmarks=tuple(benchmarks),
        gains=tuple(gains),
        comparisons=tuple(comparisons),
        tradeoff=make_tradeoff(
            runs, start, safety=safety, capability=shares,
            over_refusal=[f for f in figures if f.role == "over-refusal" and f.headline and not f.apart],
        ),
        table=make_table(runs, figures),
    )  # fmt: skip


def _why_not(figure: Figure) -> str:
    reasons = {
        "safety": "safety, not capability",
        "over-refusal": "safety, not capability",
        "loss": "a loss has no scale in common with shares",
        "preference": "preference, not capability",
        "outcome": "how answers came out, not capability",
        "capability": "was not named" if figure.unit == "share" else "is no share",
    }
    return reasons[figure.role]
