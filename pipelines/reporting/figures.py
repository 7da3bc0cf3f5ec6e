"""The figures of a report: one column each, those of unlike settings apart, and what each says about a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError
from pipelines.evaluation.contract.results import (
    HARMFUL_COMPLIANCE,
    OVER_REFUSAL,
    Metric,
    SuiteSettings,
    describe_setting,
)
from pipelines.reporting.runs import Run
from pipelines.reporting.table import Column, ResultsTable, column_title

Role = Literal["safety", "over-refusal", "capability", "loss", "preference", "outcome"]
Unlike = Literal["refuse", "apart"]


@dataclass(frozen=True)
class Figure:
    """One figure and what each run has of it.

    Attributes:
        suite: the suite that the figure belongs to.
        name: the figure's name in the suite.
        title: the figure's title in headings.
        apart: the settings in which it differs from the first figure of its name; empty for that one.
        unit: the unit of the values.
        higher_is_better: the direction in which it improves.
        headline: belongs in a short table.
        role: what it says about a model.
        settings: the settings under which it was measured.
        cells: one for each run; None where the run has not got it, or has it under other settings.
    """

    suite: str
    name: str
    title: str
    apart: str
    unit: str
    higher_is_better: bool
    headline: bool
    role: Role
    settings: SuiteSettings
    cells: tuple[Metric | None, ...]

    @property
    def key(self) -> str:
        """The name that options take: ``SUITE:FIGURE``."""
        return f"{self.suite}:{self.name}"

    @property
    def heading(self) -> str:
        """Title, and the settings that set it apart."""
        return f"{self.title} ({self.apart})" if self.apart else self.title

    @property
    def better(self) -> bool | None:
        """Whether more is better; None where a figure only says how answers came out, and has no better side."""
        return None if self.role == "outcome" else self.higher_is_better

    @property
    def column(self) -> Column:
        """The figure as a column of a table."""
        counts = {cell.num_items for cell in self.cells if cell is not None}
        return Column(
            suite=self.suite, metric=self.name, title=self.title, unit=self.unit, apart=self.apart,
            higher_is_better=self.better, num_items=counts.pop() if len(counts) == 1 else None,
        )  # fmt: skip


@dataclass(frozen=True)
class Unlikeness:
    """A suite that was measured under several settings.

    Attributes:
        suite: its name.
        runs: those with the other settings.
        against: a run with the usual ones.
        differences: each setting that differs, in words.
    """

    suite: str
    runs: tuple[str, ...]
    against: str
    differences: tuple[str, ...]


def collect_figures(
    runs: Sequence[Run], *, start: Run | None, details: bool, unlike: Unlike
) -> tuple[list[Figure], list[Unlikeness]]:
    """The figures of all runs, and where settings are unlike.

    The settings that count as usual are those of the starting model, or of the first run that has the suite.

    Raises:
        InputError: settings are unlike, and that is to be refused.
    """
    order = [start, *(run for run in runs if run is not start)] if start is not None else list(runs)
    suites = list(dict.fromkeys(suite.suite for run in order for suite in run.results.suites))
    classes = {name: _classes(order, name) for name in suites}
    unlikenesses = [found for name in suites for found in _unlike(order, name, classes[name])]
    if unlikenesses and unlike == "refuse":
        lines = [f"{found.suite}: {text}" for found in unlikenesses for text in found.differences]
        raise InputError(
            "these results cannot be compared:" + "".join(f"\n  - {line}" for line in lines),
            fix="evaluate the models again with the same suites, data, template and options; or --unlike apart "
            "shows them in columns of their own",
        )
    names = [metric.name for name in suites for metric in _metrics(order, name, classes[name][0], details)]
    figures = [
        figure
        for name in suites
        for settings in classes[name]
        for figure in _figures(runs, order, name, settings, classes[name][0], details, names)
    ]
    return figures, unlikenesses


def make_table(runs: Sequence[Run], figures: Sequence[Figure]) -> ResultsTable:
    """Runs by figures."""
    cells = tuple(tuple(figure.cells[row] for figure in figures) for row in range(len(runs)))
    return ResultsTable(tuple(figure.column for figure in figures), tuple(run.name for run in runs), cells)


def choose_figures(figures: Sequence[Figure], named: Sequence[str], role: Role, flag: str) -> list[Figure]:
    """The figures that are named, or the main shares of a role; never those that stand apart.

    Args:
        figures: the figures to choose from.
        named: ``SUITE:FIGURE``, or the name of a suite, data set or figure where that is a single one's.
        role: the role of the figures that are chosen when none is named.
        flag: the option that names them, for errors.

    Raises:
        ConfigError: a name is unknown, or is that of several.
    """
    usual = [figure for figure in figures if not figure.apart]
    if not named:
        return [figure for figure in usual if figure.role == role and figure.unit == "share" and figure.headline]
    problems, chosen = [], []
    for name in dict.fromkeys(named):
        matching = _matching(usual, name)
        if len(matching) == 1:
            chosen.append(matching[0])
        elif matching:
            problems.append(f"{flag} {name} may be {' or '.join(figure.key for figure in matching)}")
        else:
            known = [figure.key for figure in usual]
            problems.append(f"{flag}: there is no figure '{name}'{suggest(name, known)}; there are {', '.join(known)}")
    if problems:
        raise ConfigError(problems)
    return chosen


def _matching(figures: Sequence[Figure], name: str) -> list[Figure]:
    wanted = name.replace("_", "-")
    for spellings in (
        lambda figure: {figure.key},
        lambda figure: {figure.title, figure.name},
        lambda figure: {f"{figure.suite.rpartition('/')[2]}:{figure.name}"},
        lambda figure: {figure.suite, figure.suite.rpartition("/")[2]},
    ):
        found = [figure for figure in figures if wanted in {text.replace("_", "-") for text in spellings(figure)}]
        if found:
            headlines = [figure for figure in found if figure.headline]
            return headlines if len(found) > 1 and len(headlines) == 1 else found
    return []


def role_of(suite: str, metric: Metric) -> Role:
    """What a figure says about a model: by its own name first, since a suite of prompts may be called anything."""
    # Behind a stroke in its name stands the kind of the items that a detail is about.
    family, name = suite.partition("/")[0].removesuffix("-validation"), metric.name.partition("/")[0]
    if name == OVER_REFUSAL or (family in ("safety", "prompts", "testbed") and OVER_REFUSAL in name.replace("-", "_")):
        return "over-refusal"
    if name == HARMFUL_COMPLIANCE or family in ("safety", "prompts") or (family, name) == ("testbed", "safe"):
        return "safety"
    if family == "preference":
        return "preference"
    if family == "judged":
        return "outcome"
    return "loss" if metric.unit == "nats" else "capability"


def _classes(runs: Sequence[Run], suite: str) -> list[SuiteSettings]:
    found = (run.results.suite(suite) for run in runs)
    return list(dict.fromkeys(results.settings for results in found if results is not None))


def _unlike(runs: Sequence[Run], suite: str, classes: Sequence[SuiteSettings]) -> list[Unlikeness]:
    def having(settings: SuiteSettings) -> tuple[str, ...]:
        measured = ((run.name, run.results.suite(suite)) for run in runs)
        return tuple(name for name, results in measured if results is not None and results.settings == settings)

    usual = classes[0]
    return [
        Unlikeness(suite, having(other), having(usual)[0], tuple(_words(usual, other, having(usual)[0], having(other))))
        for other in classes[1:]
    ]


def _words(usual: SuiteSettings, other: SuiteSettings, against: str, runs: Sequence[str]) -> list[str]:
    return [
        f"{field.replace('_', ' ')} is {describe_setting(getattr(usual, field))} for {against} and "
        f"{describe_setting(getattr(other, field))} for {', '.join(runs)}"
        for field in SuiteSettings.model_fields
        if getattr(usual, field) != getattr(other, field)
    ]


def _apart(usual: SuiteSettings, settings: SuiteSettings) -> str:
    differing = [field for field in SuiteSettings.model_fields if getattr(usual, field) != getattr(settings, field)]
    # Other prompts follow from other shots or templates, and their hash says less.
    telling = [field for field in differing if field != "prompt_hash"] or differing
    return ", ".join(
        f"{field.removesuffix('_hash').replace('_', ' ')} {describe_setting(getattr(settings, field))}"
        for field in telling
    )


def _metrics(runs: Sequence[Run], suite: str, settings: SuiteSettings, details: bool) -> list[Metric]:
    found: dict[str, Metric] = {}
    for run in runs:
        results = run.results.suite(suite)
        if results is not None and results.settings == settings:
            for metric in results.metrics:
                if metric.headline or details:
                    found.setdefault(metric.name, metric)
    return list(found.values())


def _figures(
    runs: Sequence[Run], order: Sequence[Run], suite: str, settings: SuiteSettings, usual: SuiteSettings,
    details: bool, names: Sequence[str],
) -> list[Figure]:  # fmt: skip
    def cell(run: Run, name: str) -> Metric | None:
        results = run.results.suite(suite)
        return run.results.metric(suite, name) if results is not None and results.settings == settings else None

    return [
        Figure(
            suite=suite,
            name=metric.name,
            title=column_title(suite, metric.name, is_ambiguous=names.count(metric.name) > 1),
            apart=_apart(usual, settings),
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
            headline=metric.headline,
            role=role_of(suite, metric),
            settings=settings,
            cells=tuple(cell(run, metric.name) for run in runs),
        )
        for metric in _metrics(order, suite, settings, details)
    ]
