"""The runs of a report: results of ogpsa and of lm-eval, found by path and put together by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_registry.core.documents import suggest
from data_registry.core.errors import ArtifactError, ConfigError, InputError
from data_registry.core.manifest import InputRecord, as_input, is_artifact, open_artifact, read_manifest
from pipelines.evaluation.contract.answer import ANSWERS_FILE, AnsweredItem, read_answers
from pipelines.evaluation.contract.results import KIND, Metric, Results, read_results
from pipelines.evaluation.contract.verdict import StoredVerdict
from pipelines.evaluation.lm_eval.files import looks_like_results, read_lm_eval
from pipelines.judging.results import KIND as JUDGEMENT
from pipelines.judging.results import Judgement
from pipelines.reporting.judgements import read_judged

# Results are looked for this many folders down.
_DEPTH = 4
_KINDS = (KIND, JUDGEMENT)
# For the intervals of lm-eval's samples, as evaluate does by default.
_RESAMPLES = 2000


@dataclass(frozen=True)
class Source:
    """One artifact or file that figures come from.

    Attributes:
        path: where it lies.
        record: the entry for the manifest of what is made from it.
        suites: names of the suites in it.
    """

    path: Path
    record: InputRecord
    suites: tuple[str, ...]

    @property
    def is_artifact(self) -> bool:
        """Whether it is an artifact of ogpsa, with a lineage."""
        return self.record.kind in _KINDS


@dataclass(frozen=True)
class Run:
    """One row of a report: a model and all that was measured of it.

    Attributes:
        name: unique in the report.
        results: figures of all its sources.
        items: the answered items by suite, for the suites whose items were stored.
        sources: where its figures come from.
        verdicts: verdicts by suite and id that came with the figures rather than in files beside them.
        labels: what people say of answers, by suite and id.
        judgements: the judgements among its sources.
        behind: for figures that were looked at, the items that they are the mean of; None where they are of none.
    """

    name: str
    results: Results
    items: Mapping[str, Sequence[AnsweredItem]]
    sources: tuple[Source, ...]
    verdicts: Mapping[tuple[str, str], StoredVerdict] = field(default_factory=dict)
    labels: Mapping[tuple[str, str], str] = field(default_factory=dict)
    judgements: tuple[Judgement, ...] = ()
    behind: dict[tuple[str, Metric], dict[str, AnsweredItem] | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def is_known(self) -> bool:
        """Whether the fingerprint says which weights were measured; lm-eval's files and judgements do not."""
        return all(source.record.kind == KIND for source in self.sources)


def read_runs(arguments: Sequence[str]) -> list[Run]:
    """The runs that the arguments name, in their order.

    Args:
        arguments: paths, each alone or as ``NAME=PATH``.

    Raises:
        InputError: a path is missing or holds no results, two runs cannot be told apart, or two models have one name.
        ArtifactError: results do not verify.
    """
    found: list[tuple[str | None, Run]] = []
    seen: set[str] = set()
    for argument in arguments:
        name, path = _split(argument)
        for place in _find(path):
            absolute = os.path.abspath(place)
            if absolute not in seen:
                seen.add(absolute)
                found.append((name, _read(place)))
    return _distinct(_join(found))


def choose_start(runs: Sequence[Run], start: str) -> Run:
    """The run that is meant by a name, or by the path of its results.

    Raises:
        ConfigError: none is, or several are.
    """
    named = [run for run in runs if start in (run.name, run.results.run)]
    if not named and Path(start).exists():
        place = Path(os.path.abspath(Path(start).expanduser()))
        sources = [(run, Path(os.path.abspath(source.path))) for run in runs for source in run.sources]
        named = [run for run, path in sources if path == place or place in path.parents]
        named = list({run.name: run for run in named}.values())
    if len(named) == 1:
        return named[0]
    names = [run.name for run in runs]
    if not named:
        raise ConfigError(
            f"--start '{start}' is none of the runs{suggest(start, names)}", fix=f"one of: {', '.join(names)}"
        )
    raise ConfigError(
        f"--start '{start}' may be {' or '.join(repr(run.name) for run in named)}", fix="name one of them"
    )


def _split(argument: str) -> tuple[str | None, Path]:
    name, separator, path = argument.partition("=")
    if not separator or Path(argument).expanduser().exists():
        return None, Path(argument).expanduser()
    if not name.strip() or not path:
        raise InputError(f"'{argument}' is neither a path nor NAME=PATH")
    return name.strip(), Path(path).expanduser()


def _find(path: Path) -> list[Path]:
    """The results at a path: itself, or those in a directory, sorted by name."""
    if not path.exists():
        parent = path.parent
        names = [child.name for child in parent.iterdir()] if parent.is_dir() else []
        raise InputError(f"there are no results at '{path}'{suggest(path.name, names)}", fix="name what evaluate wrote")
    if path.is_file() or is_artifact(path):
        return [path]
    found = list(_below(path, _DEPTH))
    if not found:
        raise InputError(
            f"'{path}' holds no results: neither of ogpsa nor of lm-eval (results_*.json)",
            fix="make some:  ogpsa evaluate MODEL --suite SUITE --out DIR",
        )
    return found


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if child.name.startswith("."):
            continue
        if child.is_file() and looks_like_results(child):
            yield child
        elif is_artifact(child):
            if read_manifest(child).kind in _KINDS:
                yield child
        elif child.is_dir() and depth > 1:
            yield from _below(child, depth - 1)


def _read(path: Path) -> Run:
    if path.is_file():
        found = read_lm_eval(path, resamples=_RESAMPLES, seed=0)
        record = InputRecord(
            role="results", path=os.path.abspath(path), kind="lm-eval results", fingerprint=found.fingerprint
        )
        source = Source(path, record, tuple(suite.suite for suite in found.results.suites))
        return Run(found.results.run, found.results, found.items, (source,))
    manifest = open_artifact(path, _KINDS)
    if manifest.kind == JUDGEMENT:
        judged = read_judged(path, manifest)
        source = Source(path, as_input("results", path, manifest), tuple(judged.items))
        return Run(
            judged.results.run, judged.results, judged.items, (source,), judged.verdicts, judged.labels,
            (judged.judgement,),
        )  # fmt: skip
    results = read_results(path)
    items: dict[str, list[AnsweredItem]] = {}
    if ANSWERS_FILE in manifest.files:
        for item in read_answers(path):
            items.setdefault(item.suite, []).append(item)
    source = Source(path, as_input("results", path, manifest), tuple(suite.suite for suite in results.suites))
    return Run(results.run, results, items, (source,))


def _join(found: Sequence[tuple[str | None, Run]]) -> list[Run]:
    """Put what belongs to one model into one row: by the name that was given, else by name and fingerprint."""
    rows: dict[tuple[str, str], Run] = {}
    for given, run in found:
        name = given or run.name
        key = (name, "" if given else run.results.model_fingerprint)
        other = rows.get(key)
        suites = {suite.suite for suite in run.results.suites}
        if other is not None and not given and suites & {suite.suite for suite in other.results.suites}:
            key = (name, str(run.sources[0].path))  # measured twice: two rows
            other = None
        rows[key] = replace(run, name=name) if other is None else _merge(name, other, run)
    return list(rows.values())


def _merge(name: str, first: Run, second: Run) -> Run:
    if first.is_known and second.is_known and first.results.model_fingerprint != second.results.model_fingerprint:
        raise InputError(
            f"two models are called '{name}'",
            where=f"{first.sources[0].path} and {second.sources[0].path}",
            fix="give each its own name: NAME=PATH",
        )
    suites = {suite.suite for suite in first.results.suites}
    twice = sorted(suites & {suite.suite for suite in second.results.suites})
    if twice:
        raise InputError(
            f"'{name}' has been measured twice: {', '.join(twice)}",
            where=f"{first.sources[0].path} and {second.sources[0].path}",
            fix="leave one of them out, or give each its own name: NAME=PATH",
        )
    known = first if first.is_known else second
    merged = known.results.model_copy(update={"suites": first.results.suites + second.results.suites})
    return Run(
        name, merged, {**first.items, **second.items}, first.sources + second.sources,
        {**first.verdicts, **second.verdicts}, {**first.labels, **second.labels}, first.judgements + second.judgements,
    )  # fmt: skip


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Tell runs of one name apart by where their results lie."""
    names = [run.name for run in runs]
    renamed = [
        run if names.count(run.name) == 1 else replace(run, name=f"{run.name} ({run.sources[0].path.name})")
        for run in runs
    ]
    again = [run.name for run in renamed]
    twice = next((name for name in again if again.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two runs are called '{twice}'", fix="give each its own name: NAME=PATH")
    return renamed


def check_items(run: Run, suite: str) -> Sequence[AnsweredItem]:
    """The items of a suite, or none where they were not stored.

    Raises:
        ArtifactError: there are items, and none of this suite.
    """
    found = run.items.get(suite, ())
    own = next((source for source in run.sources if suite in source.suites), None)
    if own is not None and own.is_artifact and not found:
        raise ArtifactError(f"'{own.path}' holds no items of the suite {suite}", where=str(own.path / ANSWERS_FILE))
    return found
