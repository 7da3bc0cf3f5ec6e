"""Evaluation suites by name: adding one is a file in ``suites/`` and an entry here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError
from data_registry.core.manifest import is_artifact, read_manifest
from data_registry.prepared import SAMPLES
from data_registry.registry.listing import list_entries
from pipelines.evaluation.contract.suite import AnySuite, SuiteRequest


@dataclass(frozen=True)
class SuiteEntry:
    """A suite in the registry; its module is imported when it is asked for.

    Attributes:
        name: the name that ``--suite`` takes.
        summary: a summary for readers.
        target: ``module:name`` of what makes it from a request.
        takes: the task that prepared data sets must be for, where the suite reads such (``--data``); ``samples`` for
            a model's own answers with log-probabilities.
    """

    name: str
    summary: str
    target: str
    takes: str | None = None


_ENTRIES = (
    SuiteEntry(
        "testbed",
        "The embedded testbed: refusal, over-refusal and ten skills.",
        "pipelines.evaluation.suites.testbed:TestbedSuite",
    ),
    SuiteEntry(
        "testbed-validation",
        "The testbed's items to choose settings on: other nouns, facts and sums, many distinct requests.",
        "pipelines.evaluation.suites.testbed:validation",
    ),
    SuiteEntry(
        "reference-loss",
        "Mean token loss on the answers of prepared data sets (--data).",
        "pipelines.evaluation.suites.reference_loss:ReferenceLossSuite",
        takes="sft",
    ),
    SuiteEntry(
        "preference",
        "Accuracy and margin on prepared preference pairs (--data).",
        "pipelines.evaluation.suites.preference:PreferenceSuite",
        takes="preference",
    ),
    SuiteEntry(
        "gsm8k",
        "Word problems, exact match of the result (--data, prepared from gsm8k or alike).",
        "pipelines.evaluation.suites.gsm8k:Gsm8kSuite",
        takes="sft",
    ),
    SuiteEntry(
        "multiple-choice",
        "The likeliest of several choices (--data, prepared with --format choices).",
        "pipelines.evaluation.suites.multiple_choice:MultipleChoiceSuite",
        takes="sft",
    ),
    SuiteEntry(
        "answer-choice",
        "The likelier of a prompt's answer and three answers to other prompts (--data, any prepared SFT data).",
        "pipelines.evaluation.suites.answer_choice:AnswerChoiceSuite",
        takes="sft",
    ),
    SuiteEntry(
        "divergence",
        "KL divergence from the model that made samples, at the places of its answers (--data, from ogpsa sample).",
        "pipelines.evaluation.suites.divergence:DivergenceSuite",
        takes=SAMPLES,
    ),
    SuiteEntry(
        "instructions",
        "Simple instructions that a program checks: a word to use, a number of sentences, a form.",
        "pipelines.evaluation.suites.instructions:InstructionsSuite",
    ),
    SuiteEntry(
        "safety",
        "XSTest, HarmBench, StrongREJECT, AdvBench and WildJailbreak: harmful compliance and over-refusal, judged.",
        "pipelines.evaluation.suites.prompts:safety",
    ),
    SuiteEntry(
        "prompts",
        "Prompts of your own files (--harmful, --harmless), judged.",
        "pipelines.evaluation.suites.prompts:local_prompts",
    ),
    SuiteEntry(
        "capability",
        "Tasks of lm-eval by name (--task), such as mmlu, gsm8k, ifeval.",
        "pipelines.evaluation.suites.capability:CapabilitySuite",
    ),
)
SUITES: Mapping[str, SuiteEntry] = {entry.name: entry for entry in _ENTRIES}
_TAKES_DATA = {entry.name: entry.takes for entry in _ENTRIES if entry.takes is not None}


def suite_rows() -> list[tuple[str, str]]:
    """The names that ``--suite`` takes, each with what it is: suites, then prompt sets of the data registry."""
    prompt_sets = [(entry.name, entry.description) for entry in list_entries() if entry.task == "prompts"]
    return [*((entry.name, entry.summary) for entry in _ENTRIES), *prompt_sets]


def create_suites(names: Sequence[str], request: SuiteRequest) -> list[AnySuite]:
    """The suites of these names, in order: of the registry, prompt sets of the data registry, and YAML files.

    Raises:
        ConfigError: a name is unknown or comes twice, or suites and data do not go together; all problems at once.
        InputError: a data set cannot be used.
        ArtifactError: a data set does not verify.
    """
    from pipelines.evaluation.suites.prompt_specs import SAFETY_SETS

    prompt_sets = [entry.name for entry in list_entries() if entry.task == "prompts"]
    known = [*SUITES, *prompt_sets]
    problems = [
        f"unknown suite '{name}'{suggest(name, known)}; known: {', '.join(known)}, or a YAML file"
        for name in names
        if name not in known and not is_suite_file(name)
    ]
    problems += [f"suite '{name}' is given twice" for name in dict.fromkeys(names) if list(names).count(name) > 1]
    problems += [f"'{name}' is part of 'safety'" for name in SAFETY_SETS if name in names and "safety" in names]
    takers = [name for name in _TAKES_DATA if name in names]
    problems += [f"suite '{name}' needs a prepared data set: --data DIR" for name in takers if not request.data]
    if request.data and not takers and not problems:
        problems.append(f"--data is for the suites {', '.join(_TAKES_DATA)}: add --suite reference-loss, or another")
    if problems:
        raise ConfigError(problems)
    suites = [_create(name, _routed(name, takers, request)) for name in names]
    _refuse_equal_names(suites)
    return suites


def names_in_results(names: Sequence[str], suites: Sequence[AnySuite]) -> list[str]:
    """The names of the suites in results, or the first part of them where the rest is the data set's.

    Args:
        names: the names that ``--suite`` was given.
        suites: what :func:`create_suites` made of them.
    """
    from pipelines.evaluation.suites.prompts import PromptSuite

    found = [
        suite.names() if isinstance(suite, PromptSuite) else [name] for name, suite in zip(names, suites, strict=True)
    ]
    return [name for each in found for name in each]


def _refuse_equal_names(suites: Sequence[AnySuite]) -> None:
    """Refuse suites whose results would have one name: that would come out only when all is measured.

    Raises:
        ConfigError: two have; every such name is given.
    """
    from pipelines.evaluation.suites.prompts import PromptSuite

    found = [name for suite in suites if isinstance(suite, PromptSuite) for name in suite.names()]
    twice = [name for name in dict.fromkeys(found) if found.count(name) > 1]
    if twice:
        raise ConfigError(
            [f"two of the suites have results called '{name}'" for name in twice],
            fix="give a suite file another 'name:'",
        )


def _routed(name: str, takers: Sequence[str], request: SuiteRequest) -> SuiteRequest:
    """The request with those data sets that are for a suite: of its task, and of tasks that no suite takes.

    Raises:
        ConfigError: none is of its task.
    """
    if name not in _TAKES_DATA or len({_TAKES_DATA[taker] for taker in takers}) < 2:
        return request
    wanted = {_TAKES_DATA[taker] for taker in takers}
    tasks = {path: _task_of(path, samples=SAMPLES in wanted) for path in request.data}
    data = tuple(path for path, task in tasks.items() if task == _TAKES_DATA[name] or task not in wanted)
    if not data:
        if _TAKES_DATA[name] == SAMPLES:
            raise ConfigError(f"suite '{name}' needs samples, which ogpsa sample makes: --data DIR")
        raise ConfigError(f"suite '{name}' needs a data set that was prepared for {_TAKES_DATA[name]}: --data DIR")
    return replace(request, data=data)


def _task_of(path: Path, *, samples: bool) -> str | None:
    """The task that a data set was prepared for, or that it is samples, where suites tell these from other sets."""
    # What is wrong with it is said by the suite that opens it.
    if not is_artifact(path):
        return None
    manifest = read_manifest(path)
    return SAMPLES if samples and manifest.kind == SAMPLES else str(manifest.summary.get("task"))


def validation_side(name: str) -> str:
    """The suite to choose settings by in place of another: ``NAME-validation``, where there is one, else itself."""
    other = f"{name}-validation"
    return other if other in SUITES else name


def is_suite_file(name: str) -> bool:
    """Whether a suite is meant that a YAML file describes."""
    return name.lower().endswith((".yaml", ".yml"))


def _create(name: str, request: SuiteRequest) -> AnySuite:
    if name in SUITES:
        suite: AnySuite = _load(SUITES[name].target)(request)
        return suite
    from pipelines.evaluation.suites.prompt_specs import read_suite_file, registry_spec
    from pipelines.evaluation.suites.prompts import PromptSuite

    if is_suite_file(name):
        path = Path(name).expanduser()
        return PromptSuite(request, read_suite_file(path), path.parent)
    return PromptSuite(request, registry_spec([name]))


def _load(target: str) -> Any:
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)
