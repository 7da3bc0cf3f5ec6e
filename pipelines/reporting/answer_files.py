"""What is stored beside the scored items of a run: verdicts with their reasons, requests, and how answers ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_registry.core.manifest import read_manifest
from pipelines.evaluation.answering.store import GENERATIONS_FILE, read_generations
from pipelines.evaluation.contract.results import KIND
from pipelines.evaluation.contract.verdict import VERDICTS_FILE, StoredVerdict, read_verdicts
from pipelines.reporting.runs import Run

_Key = tuple[str, str]


@dataclass
class Told:
    """What is told of the items of a run, by suite and id.

    Attributes:
        verdicts: what the judge said.
        questions: the request without the template.
        finishes: how the answer ended.
        labels: what people say of it.
    """

    verdicts: dict[_Key, StoredVerdict] = field(default_factory=dict)
    questions: dict[_Key, str] = field(default_factory=dict)
    finishes: dict[_Key, str] = field(default_factory=dict)
    labels: dict[_Key, str] = field(default_factory=dict)


def told_by(run: Run) -> Told:
    """All that the artifacts of a run tell of its items.

    Raises:
        ArtifactError: a file cannot be read.
    """
    told = Told(verdicts=dict(run.verdicts), labels=dict(run.labels))
    for source in run.sources:
        if source.record.kind != KIND:
            continue
        files = read_manifest(source.path).files
        if VERDICTS_FILE in files:
            told.verdicts.update((verdict.key, verdict) for verdict in read_verdicts(source.path))
        if GENERATIONS_FILE in files:
            for answer in read_generations(source.path):
                told.questions[answer.suite, answer.id] = answer.question
                told.finishes[answer.suite, answer.id] = answer.finish
    return told
