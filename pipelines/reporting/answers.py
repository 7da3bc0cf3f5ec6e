"""The answers of all runs side by side: each with its verdict, and what the verdict rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Metric, SuiteResults
from pipelines.evaluation.contract.verdict import ERROR, UNSURE, Label, StoredVerdict
from pipelines.reporting.answer_files import Told, told_by
from pipelines.reporting.books import Book, Cell, Row
from pipelines.reporting.figures import role_of
from pipelines.reporting.runs import Run

REFUSED: Final = "refused"
_STATES: Final = {
    Label.FULL_COMPLIANCE.value: "complied",
    Label.FULL_REFUSAL.value: REFUSED,
    Label.PARTIAL_REFUSAL.value: "refused in part",
    UNSURE: "unsure",
    ERROR: "judge error",
}
_FINISHES: Final = {"length": "cut off at the limit of tokens", "too_long": "the prompt fills the context"}
NO_REASON: Final = "no reason was recorded with this result"
_Key = tuple[str, str, str]


@dataclass(frozen=True)
class Choice:
    """How many items of a suite are in the page.

    Attributes:
        suite: the suite's name.
        shown: items in the page.
        stored: items that were stored.
    """

    suite: str
    shown: int
    stored: int


def make_book(runs: Sequence[Run], *, most: int | None, harmful: str) -> tuple[Book | None, list[Choice]]:
    """The answers of all runs; None where no items were stored, or none are wanted.

    Args:
        runs: the runs; the starting model first, if there is one.
        most: the number of answers that the page may hold; None: all.
        harmful: ``covered``, ``shown`` or ``left-out``: what happens to answers to harmful prompts that were not
            refused.

    Raises:
        ArtifactError: stored answers cannot be read.
    """
    if most == 0:
        return None, []
    found: dict[_Key, dict[int, AnsweredItem]] = {}
    readers = [_Reader(run) for run in runs]
    for column, run in enumerate(runs):
        for suite in run.results.suites:
            for item in run.items.get(suite.suite, ()):
                found.setdefault((suite.suite, suite.settings.prompt_hash, item.id), {})[column] = item
    if not found:
        return None, []
    chosen, choices = _choose(found, readers, most)
    rows = tuple(_row(key, found[key], readers, harmful) for key in chosen)
    return Book("Answers", "answers", tuple(run.name for run in runs), rows), choices


def _choose(
    found: Mapping[_Key, Mapping[int, AnsweredItem]], readers: Sequence[_Reader], most: int | None
) -> tuple[list[_Key], list[Choice]]:
    """The items that the page holds, in their order: an equal part of each suite, those that tell runs apart first."""
    suites: dict[str, list[_Key]] = {}
    for key in found:
        suites.setdefault(key[0], []).append(key)
    room = None if most is None else max(len(suites), most // len(readers))
    chosen: set[_Key] = set()
    sizes: dict[str, int] = {}
    by_size = sorted(suites, key=lambda suite: len(suites[suite]))
    for place, suite in enumerate(by_size):
        keys = suites[suite]
        sizes[suite] = len(keys) if room is None else min(len(keys), room // (len(by_size) - place))
        if room is not None:
            room -= sizes[suite]
        if sizes[suite] < len(keys):
            keys = sorted(keys, key=lambda key: _all_alike(found[key], readers))
        chosen.update(keys[: sizes[suite]])
    return (
        [key for key in found if key in chosen],
        [Choice(suite, sizes[suite], len(keys)) for suite, keys in suites.items()],
    )


def _all_alike(items: Mapping[int, AnsweredItem], readers: Sequence[_Reader]) -> bool:
    """Whether the same came of an item in all runs; most that tell runs apart do so within the first few."""
    states = (readers[column].state(item) for column, item in items.items())
    first = next(states)
    return all(state == first for state in states)


def _row(key: _Key, items: Mapping[int, AnsweredItem], readers: Sequence[_Reader], harmful: str) -> Row:
    first = next(iter(items.values()))
    questions = (readers[column].question(item) for column, item in items.items())
    prompt = next((question for question in questions if question is not None), first.prompt)
    group = ", ".join(part for part in (first.group, first.category) if part)
    cells = tuple(_cell(column, item, readers[column], harmful) for column, item in items.items())
    # What a harmful request asks for stands in no clearer words than in the answer that is expected to it.
    is_delicate = harmful != "shown" and any(readers[column].is_harmful(item) for column, item in items.items())
    return Row(first.suite, first.id, group, prompt, "" if is_delicate else first.expected or "", cells)


def _cell(column: int, item: AnsweredItem, reader: _Reader, harmful: str) -> Cell:
    state = reader.state(item)
    is_delicate = reader.is_harmful(item) and state != REFUSED and harmful != "shown"
    if is_delicate and harmful == "left-out":
        # A judge gives the sentences that decided, and a judge model's words may repeat them.
        return Cell(column, None, state, "left out with the answer", reader.note(item))
    return Cell(column, item.answer, state, reader.reason(item), reader.note(item), is_delicate)


class _Reader:
    """What one run's stored verdicts, or its scores, say of its items."""

    def __init__(self, run: Run) -> None:
        self._suites = {suite.suite: suite for suite in run.results.suites}
        self._told: Told = told_by(run)
        self._metrics: dict[tuple[str, str], Metric | None] = {}

    def question(self, item: AnsweredItem) -> str | None:
        """The request as the user put it, where that was stored beside the prompt with its template."""
        return self._told.questions.get((item.suite, item.id))

    def state(self, item: AnsweredItem) -> str:
        """What came of an answer."""
        verdict = self._verdict(item)
        if verdict is not None:
            return _STATES.get(verdict.outcome, verdict.outcome)
        metric = self._metric(item)
        if item.score not in (0.0, 1.0) or (metric is not None and metric.unit == "nats"):
            return "scored"
        role = role_of(item.suite, metric) if metric is not None else "capability"
        if metric is not None and role in ("safety", "over-refusal", "outcome"):
            # Of harmful requests less compliance is better, and refusals are what is counted where more is.
            counts_refusals = role == "over-refusal" or (role == "safety" and metric.higher_is_better)
            return REFUSED if (item.score == 1.0) == counts_refusals else "complied"
        return "right" if item.score == 1.0 else "wrong"

    def is_harmful(self, item: AnsweredItem) -> bool:
        """Whether the prompt is one that a model should refuse."""
        metric = self._metric(item)
        return item.group == "harmful" or (metric is not None and role_of(item.suite, metric) == "safety")

    def reason(self, item: AnsweredItem) -> str:
        """What the verdict rests on; says so where that was not recorded."""
        verdict = self._verdict(item)
        if verdict is not None:
            told = verdict.evidence.strip()
            return f"{verdict.judge}: {told}" if told else f"{verdict.judge} gave no reason"
        suite = self._suites.get(item.suite)
        scoring = suite.settings.scoring if suite is not None else ""
        if not scoring or scoring.startswith("judge "):
            return NO_REASON
        return f"rule: {scoring}"

    def note(self, item: AnsweredItem) -> str:
        """What else there is to know of an answer."""
        verdict = self._verdict(item)
        parts = [_FINISHES.get(self._told.finishes.get((item.suite, item.id), ""), "")]
        if verdict is not None and verdict.outcome == UNSURE and verdict.label:
            parts.append(f"most likely {_STATES.get(verdict.label, verdict.label)}")
        if self.state(item) == "scored":
            parts.append(f"score {item.score:.4g}")
        label = self._told.labels.get((item.suite, item.id))
        if label:
            parts.append(f"people say: {_STATES.get(label, label)}")
        return "; ".join(part for part in parts if part)

    def _verdict(self, item: AnsweredItem) -> StoredVerdict | None:
        return self._told.verdicts.get((item.suite, item.id))

    def _metric(self, item: AnsweredItem) -> Metric | None:
        """The figure that counts the items of this group: the one that says most of safety, else the first."""
        key = (item.suite, item.group)
        if key not in self._metrics:
            suite = self._suites.get(item.suite)
            self._metrics[key] = _figure_of(suite, item.group) if suite is not None else None
        return self._metrics[key]


def _figure_of(suite: SuiteResults, group: str) -> Metric | None:
    found = [metric for metric in suite.metrics if group in metric.groups]
    ranks = {"safety": 0, "over-refusal": 1}
    return min(found, key=lambda metric: ranks.get(role_of(suite.suite, metric), 2), default=None)


def choice_notes(choices: Iterable[Choice], option: str) -> list[str]:
    """What a reader must know of answers that are stored and not in the page."""
    left = [
        f"{choice.shown} of {choice.stored} of {choice.suite}" for choice in choices if choice.shown < choice.stored
    ]
    if not left:
        return []
    return [
        f"Not all items are in this page (--answers {option}): {'; '.join(left)}. Those on which runs differ came "
        "first; --answers all puts in all."
    ]
