"""What lm-eval found out, as our results: from a call of it, or from the files that it wrote.

lm-eval names a figure ``METRIC,FILTER``; the filter ``none`` is left out here. A task becomes the suite
``capability/TASK``; a group of tasks becomes one suite, with its tasks' figures as details. Where a figure is the mean
of its samples' scores, they become items with an interval of ours; any other figure keeps lm-eval's standard error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Metric, SuiteResults, SuiteSettings, hash_text
from pipelines.evaluation.statistics.intervals import mean_interval

FAMILY = "capability"
_NORMAL_95 = 1.959963984540054
# Scores from 0 to 100, or without an upper end, that may lie below 1 all the same.
_NO_SHARES = ("bleu", "chrf", "ter", "rouge", "perplexity", "brier", "bits", "likelihood")
Sample = Mapping[str, Any]


@dataclass(frozen=True)
class TaskOutcome:
    """A task or group of lm-eval: its figures, and the items of those that are means."""

    results: SuiteResults
    items: list[AnsweredItem]


def convert(
    found: Mapping[str, Any], samples: Mapping[str, Sequence[Sample]] | None, *, resamples: int, seed: int
) -> list[TaskOutcome]:
    """The tasks and groups of a result of lm-eval, in its order; tasks of a group are in the group's.

    Args:
        found: what ``lm_eval.simple_evaluate`` returned, or the content of a ``results_*.json``.
        samples: the samples by task, as ``simple_evaluate`` returned them or as ``samples_*.jsonl`` holds them; None:
            not stored.
        resamples: the number of resamples that the bootstrap draws.
        seed: the seed of the bootstrap.

    Raises:
        KeyError, TypeError, ValueError: it is no result of lm-eval.
    """
    groups: Mapping[str, Sequence[str]] = found.get("group_subtasks") or {}
    groups = {name: children for name, children in groups.items() if children}
    inner = {child for children in groups.values() for child in children}
    reader = _Reader(found, samples or {}, groups, resamples, seed)
    outcomes: list[TaskOutcome] = []
    for name in [*found.get("groups", {}), *found["results"]]:
        is_group = name in groups
        if name in inner or any(outcome.results.suite == f"{FAMILY}/{name}" for outcome in outcomes):
            continue
        if is_group and not any(_figures(reader.figures_of(name))):
            # A group without figures of its own: its tasks stand for themselves.
            outcomes += [made for task in reader.tasks_of(name) if (made := reader.outcome(task)) is not None]
        elif (made := reader.outcome(name)) is not None:
            outcomes.append(made)
    return outcomes


def _figures(entries: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Metric, filter and value of each figure among a task's entries."""
    for key, value in entries.items():
        metric, comma, name = key.partition(",")
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if comma and is_number and not metric.endswith("_stderr"):
            yield metric, name, float(value)


@dataclass(frozen=True)
class _Reader:
    found: Mapping[str, Any]
    samples: Mapping[str, Sequence[Sample]]
    groups: Mapping[str, Sequence[str]]
    resamples: int
    seed: int

    def figures_of(self, name: str) -> Mapping[str, Any]:
        entries: Mapping[str, Any] = self.found.get("groups", {}).get(name) or self.found["results"].get(name, {})
        return entries

    def tasks_of(self, name: str) -> list[str]:
        """The tasks in a group, through all levels; of a task itself."""
        if name not in self.groups:
            return [name]
        return [task for child in self.groups[name] for task in self.tasks_of(child)]

    def outcome(self, name: str) -> TaskOutcome | None:
        """The suite of a task or group; None where it has no figures that can be read."""
        tasks = self.tasks_of(name)
        metrics: list[Metric] = []
        items: list[AnsweredItem] = []
        for metric, filter_name, value in _figures(self.figures_of(name)):
            higher = self._higher_is_better(name, metric)
            if higher is None:
                continue
            scored = [] if any(task not in self.samples for task in tasks) else self._items(name, metric, filter_name)
            if scored and math.isclose(float(np.mean([s.score for s in scored])), value, rel_tol=1e-9, abs_tol=1e-12):
                items += scored
            else:
                scored = []
            metrics.append(self._metric(name, metric, filter_name, value, higher, scored, headline=not metrics))
        if name in self.groups:
            metrics += self._details(name, {metric.name for metric in metrics})
        if not metrics:
            return None
        results = SuiteResults(suite=f"{FAMILY}/{name}", settings=self._settings(name), metrics=tuple(metrics))
        return TaskOutcome(results, items)

    def _details(self, group: str, known: set[str]) -> list[Metric]:
        """The figures of a group's tasks, of those kinds that the group has."""
        return [
            self._metric(task, metric, filter_name, value, higher, [], headline=False, prefix=f"{task} ")
            for task in self.tasks_of(group)
            for metric, filter_name, value in _figures(self.figures_of(task))
            if _name(metric, filter_name) in known and (higher := self._higher_is_better(task, metric)) is not None
        ]

    def _metric(
        self, task: str, metric: str, filter_name: str, value: float, higher: bool, scored: Sequence[AnsweredItem], *,
        headline: bool, prefix: str = "",
    ) -> Metric:  # fmt: skip
        name = _name(metric, filter_name)
        scores = np.array([item.score for item in scored])
        is_share = higher and 0 <= value <= 1 and not any(word in metric.lower() for word in _NO_SHARES)
        if len(scores):
            is_share = is_share and bool(((scores >= 0) & (scores <= 1)).all())
            interval = mean_interval(scores, resamples=self.resamples, seed=self.seed)
            ends: dict[str, Any] = {}
            if interval is not None:
                ends = {"low": interval.low, "high": interval.high, "interval": interval.method}
        else:
            ends = self._normal(task, metric, filter_name, value, is_share)
        return Metric.model_validate(
            {
                "name": prefix + name, "value": value, "num_items": len(scores) or self._count(task),
                "higher_is_better": higher, "unit": "share" if is_share else "score", "headline": headline,
                "groups": (prefix + name,), **ends,
            }
        )  # fmt: skip

    def _normal(self, task: str, metric: str, filter_name: str, value: float, is_share: bool) -> dict[str, Any]:
        error = self.figures_of(task).get(f"{metric}_stderr,{filter_name}")
        if not isinstance(error, int | float) or not math.isfinite(error) or error <= 0:
            return {}
        low, high = value - _NORMAL_95 * error, value + _NORMAL_95 * error
        if is_share:
            low, high = max(0.0, low), min(1.0, high)
        return {"low": low, "high": high, "interval": "normal"}

    def _items(self, name: str, metric: str, filter_name: str) -> list[AnsweredItem]:
        """The samples' scores of a figure; none where they are not numbers, as those of corpus measures."""
        group = _name(metric, filter_name)
        found = []
        for task in self.tasks_of(name):
            for sample in self.samples[task]:
                if sample["filter"] != filter_name or metric not in sample:
                    continue
                score = sample[metric]
                if not isinstance(score, int | float) or not math.isfinite(score):
                    return []
                found.append(
                    AnsweredItem(
                        suite=f"{FAMILY}/{name}", id=f"{task}/{sample['doc_id']}/{group}", group=group,
                        prompt=_prompt(sample), answer=_answer(sample), expected=_expected(sample), score=float(score),
                    )
                )  # fmt: skip
        return found

    def _count(self, name: str) -> int:
        counts = self.found.get("n-samples", {})
        return max(1, sum(int(counts[task]["effective"]) for task in self.tasks_of(name) if task in counts))

    def _higher_is_better(self, name: str, metric: str) -> bool | None:
        known = self.found.get("higher_is_better", {})
        values = {known.get(task, {}).get(metric) for task in (name, *self.tasks_of(name))} - {None}
        return bool(values.pop()) if len(values) == 1 else None

    def _settings(self, name: str) -> SuiteSettings:
        tasks = self.tasks_of(name)
        configs = [self.found.get("configs", {}).get(task, {}) for task in tasks]
        shots = {int(self.found.get("n-shot", {}).get(task, 0)) for task in tasks}
        return SuiteSettings(
            version=_one(str(self.found.get("versions", {}).get(task)) for task in (name, *tasks)),
            split=_one(str(c.get("test_split") or c.get("validation_split") or "?") for c in configs),
            prompt_hash=self._prompt_hash(tasks),
            template_hash=self._template_hash(),
            shots=shots.pop() if len(shots) == 1 else -1,
            decoding=_one(_decoding(config) for config in configs),
            scoring=_one(f"lm-eval {config.get('output_type', '?')}" for config in configs),
        )

    def _prompt_hash(self, tasks: Sequence[str]) -> str:
        """The hash that lm-eval itself takes of a task's documents, prompts and targets; its result files have it."""
        known = self.found.get("task_hashes") or {}
        hashes = [known[task] if task in known else _task_hash(self.samples.get(task, ())) for task in tasks]
        if any(found is None for found in hashes):
            return f"not stored ({sum(self._count(task) for task in tasks)} items)"
        return str(hashes[0]) if len(hashes) == 1 else hash_text("".join(map(str, hashes)))

    def _template_hash(self) -> str:
        system, template = self.found.get("system_instruction_sha"), self.found.get("chat_template_sha")
        if not template:
            return "no chat template" + (f", system message {system[:12]}" if system else "")
        return hash_text(template + system) if system else str(template)


def _name(metric: str, filter_name: str) -> str:
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def _one(values: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _decoding(config: Mapping[str, Any]) -> str:
    if config.get("output_type") != "generate_until":
        return "none"
    return json.dumps(config.get("generation_kwargs") or {}, sort_keys=True, ensure_ascii=False)


def _task_hash(samples: Sequence[Sample]) -> str | None:
    # As lm-eval computes it for its files.
    hashes = [sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples]
    return hash_text("".join(hashes)) if hashes else None


def _arguments(sample: Sample) -> list[Sequence[Any]]:
    """The arguments of a sample's requests: lists in memory, numbered keys in files."""
    found = sample["arguments"]
    return [list(one.values()) for one in found.values()] if isinstance(found, Mapping) else list(found)


def _prompt(sample: Sample) -> str:
    arguments = _arguments(sample)
    return str(arguments[0][0]) if arguments and arguments[0] else ""


def _answer(sample: Sample) -> str:
    """The text that was generated, or the choice that the model finds likeliest."""
    responses = sample["filtered_resps"]
    choices = [arguments[1] for arguments in _arguments(sample) if len(arguments) > 1]
    try:
        likelihoods = [float(response[0]) for response in responses if not isinstance(response, str)]
    except (TypeError, ValueError, IndexError):
        likelihoods = []
    if likelihoods and len(likelihoods) == len(choices) == len(responses):
        return str(choices[int(np.argmax(likelihoods))]).strip()
    return str(responses[0] if len(responses) == 1 else responses)


def _expected(sample: Sample) -> str | None:
    """The right answer: of choices its text, else the target."""
    target, arguments = sample["target"], _arguments(sample)
    if str(target).isdigit() and len(arguments) > 1 and int(target) < len(arguments):
        return str(arguments[int(target)][1]).strip()
    return str(target)
