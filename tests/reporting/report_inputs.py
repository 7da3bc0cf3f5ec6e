"""Results for the tests of reports: small artifacts with items whose figures are known."""

import json
from pathlib import Path

import numpy as np

from data_registry.core.manifest import InputRecord, as_input, read_manifest
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig
from pipelines.evaluation.answering.store import write_generations
from pipelines.evaluation.contract.answer import AnsweredItem, write_answers
from pipelines.evaluation.contract.results import Metric, Results, SuiteResults, SuiteSettings
from pipelines.evaluation.contract.verdict import StoredVerdict, write_verdicts
from pipelines.evaluation.statistics.intervals import mean_interval
from pipelines.evaluation.suites.prompts import is_against
from tests.evaluation.test_results import SETTINGS

Scores = dict[str, list[float]]


def suite(name: str, figures: dict[str, list[float]], *, lower=(), unit="share", **settings) -> tuple:
    """A suite whose figures are means of these scores, and its items; a figure's items are a group of their own."""
    metrics, items = [], []
    for figure, scores in figures.items():
        found = mean_interval(np.array(scores, dtype=float), resamples=200, seed=0)
        ends = {"low": found.low, "high": found.high, "interval": found.method} if found else {}
        metrics.append(
            Metric(
                name=figure, value=float(np.mean(scores)), num_items=len(scores), unit=unit,
                higher_is_better=figure not in lower, groups=(figure,), **ends,
            )
        )  # fmt: skip
        items += [
            AnsweredItem(name, f"{figure}/{number}", figure, "p", "a", None, float(score))
            for number, score in enumerate(scores)
        ]
    return SuiteResults(suite=name, settings=SuiteSettings(**(SETTINGS | settings)), metrics=tuple(metrics)), items


def store(path: Path, run: str, *suites: tuple, fingerprint: str = "", inputs=(), verdicts=(), answers=()) -> Path:
    """An artifact of results, with verdicts and answers as they were given where there are any."""
    results = Results(
        run=run, model=f"models/{run}", model_fingerprint=fingerprint or f"{run}-weights",
        suites=tuple(found for found, _ in suites),
    )  # fmt: skip
    with write_artifact(path, "results", CommandConfig(), list(inputs)) as writer:
        (writer.path / "results.json").write_text(results.to_json())
        write_answers(writer.path, [items for _, items in suites])
        if verdicts:
            write_verdicts(writer.path, verdicts)
        if answers:
            write_generations(writer.path, answers, {})
    return path


def judged(name: str, outcomes: dict[str, list[str]], texts: dict[str, list[str]]) -> tuple[tuple, list]:
    """A judged suite and its verdicts, from the outcome and the text of each answer, by group."""
    metrics, items, verdicts = [], [], []
    for group, found in outcomes.items():
        scores = [float(is_against(group, outcome)) for outcome in found]
        figure = "harmful_compliance" if group == "harmful" else "over_refusal"
        metrics.append(
            Metric(
                name=figure, value=float(np.mean(scores)), num_items=len(scores), unit="share",
                higher_is_better=False, groups=(group,),
            )
        )  # fmt: skip
        for number, (outcome, text, score) in enumerate(zip(found, texts[group], scores, strict=True)):
            key = f"{group}/{number}"
            items.append(AnsweredItem(name, key, group, f"<user> {key} <bot>", text, None, score, category="sort"))
            label = None if outcome == "judge_error" else "full_refusal" if outcome == "unsure" else outcome
            verdicts.append(StoredVerdict(name, key, "refusal", outcome, label, f"because of {key}"))
    settings = SuiteSettings(**(SETTINGS | {"scoring": "judge refusal 1"}))
    return (SuiteResults(suite=name, settings=settings, metrics=tuple(metrics)), items), verdicts


def train(path: Path, lines=(), *, samples=None, inputs=(), **options) -> InputRecord:
    """A training run with this log, as an input of what is made from it."""

    class TrainConfig(CommandConfig):
        learning_rate: float = 0.1
        model: str = "m"

    with write_artifact(path, "run", TrainConfig(**options), list(inputs)) as writer:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (writer.path / "metrics.jsonl").write_text(text)
        if samples is not None:
            (writer.path / "samples.jsonl").write_text(samples)
    return as_input("model", path, read_manifest(path))


def shares(right: int, total: int) -> list[float]:
    """Scores of which the first ones are right."""
    return [1.0] * right + [0.0] * (total - right)
