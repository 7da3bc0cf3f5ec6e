"""What results are: figures with their items and intervals, and the settings under which they may be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_registry.core.errors import ArtifactError, InputError, first_line
from data_registry.core.manifest import open_artifact
from pipelines.core.making import Made

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KIND = "results"
RESULTS_FILE = "results.json"
RESULTS_SCHEMA = 1

HARMFUL_COMPLIANCE: Final = "harmful_compliance"
OVER_REFUSAL: Final = "over_refusal"
"""What judged answers are counted as, whatever the suite that asked for them is called."""

Unit = Literal["share", "nats", "score"]
# Figures and the ends of their intervals are sums in another order.
_ROUNDING = 1e-9


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Metric(_Record):
    """One figure.

    Attributes:
        name: unique in its suite.
        value: the figure.
        low: lower end of the 95 % interval; None where the items say nothing on the spread (a single one).
        high: upper end.
        interval: how the interval was found; ``normal``: from a standard error that came with the figure.
        num_items: items (samples) that the figure is the mean of, and that the interval resamples.
        higher_is_better: the direction in which the figure improves.
        unit: ``share`` from 0 to 1, ``nats`` (loss per token), or ``score`` (any other number).
        headline: belongs in a short table; the rest are its details.
        groups: groups of items that it is the mean over, each counting equally.
        category: the category of the items within these groups; None for all of them.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    interval: Literal["bootstrap", "wilson", "normal"] | None = None
    num_items: int = Field(ge=1)
    higher_is_better: bool
    unit: Unit
    headline: bool = True
    groups: tuple[str, ...] = Field(min_length=1)
    category: str | None = None

    def is_of(self, group: str, category: str) -> bool:
        """Whether the figure is a mean over items of this group and category, among others."""
        return group in self.groups and self.category in (None, category)

    @model_validator(mode="after")
    def _ordered(self) -> Metric:
        if (self.low is None) != (self.high is None) or (self.low is None) != (self.interval is None):
            raise ValueError(f"{self.name}: low, high and interval are given together or not at all")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{self.name}: the interval [{self.low}, {self.high}] is upside down")
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        room = _ROUNDING * max(1.0, abs(self.value))
        if not low - room <= self.value <= high + room:
            raise ValueError(f"{self.name}: the interval [{low}, {high}] does not hold the figure {self.value}")
        if self.unit == "share" and not (-room <= low and high <= 1.0 + room):
            shown = f"{self.value}" if self.low is None else f"{self.value} [{low}, {high}]"
            raise ValueError(f"{self.name}: a share lies between 0 and 1 with its interval, not at {shown}")
        return self


class SuiteSettings(_Record):
    """What must be alike for two figures to be comparable.

    Attributes:
        version: the version of the suite: its items and its rules.
        split: the split that the items come from.
        prompt_hash: a hash over the items: conversations and expected answers, in order.
        template_hash: the hash of the chat template that the prompts were written with.
        shots: worked examples before each prompt.
        decoding: how answers were made: ``greedy``, or ``none`` where given answers are scored.
        scoring: the rule or judge by which answers count.
        max_length: tokens after which an item is cut; None where none was.
        tokenizer_hash: the hash of the tokenizer where the figure is per token; otherwise None, as tokenizers may
            differ.
    """

    version: str
    split: str
    prompt_hash: str
    template_hash: str
    shots: int = 0
    decoding: str
    scoring: str
    max_length: int | None = None
    tokenizer_hash: str | None = None


class SuiteResults(_Record):
    """The figures of one suite.

    Attributes:
        suite: name, with the data set's where a suite takes any, as ``reference-loss/gsm8k``.
        settings: the settings that must be alike in a comparison.
        metrics: the figures, most important first.
        counts: the number of items with each outcome, such as ``harmful/full_refusal`` or ``harmful/judge_error``.
    """

    suite: str
    settings: SuiteSettings
    metrics: tuple[Metric, ...] = Field(min_length=1)
    counts: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _distinct(self) -> SuiteResults:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError(f"suite {self.suite}: a metric appears twice")
        return self


class Results(_Record):
    """What ``evaluate`` found out about one model.

    Attributes:
        run: the name that tables show.
        model: the reference by which the model was named.
        model_fingerprint: the fingerprint of weights, configuration, tokenizer and template.
        suites: one entry for each suite, or for each of its data sets.
    """

    schema_version: int = RESULTS_SCHEMA
    run: str
    model: str
    model_fingerprint: str
    suites: tuple[SuiteResults, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Results:
        names = [suite.suite for suite in self.suites]
        if len(set(names)) != len(names):
            raise ValueError("a suite appears twice")
        return self

    def suite(self, name: str) -> SuiteResults | None:
        """The figures of a suite, or None."""
        return next((suite for suite in self.suites if suite.suite == name), None)

    def metric(self, suite: str, name: str) -> Metric | None:
        """One figure, or None where it was not measured."""
        found = self.suite(suite)
        metrics = found.metrics if found is not None else ()
        return next((metric for metric in metrics if metric.name == name), None)

    def summary(self) -> dict[str, Any]:
        """The headline figures, for the manifest."""
        return {"run": self.run} | {
            suite.suite: {metric.name: round(metric.value, 6) for metric in suite.metrics if metric.headline}
            for suite in self.suites
        }

    def to_json(self) -> str:
        """The text of ``results.json``."""
        return self.model_dump_json(indent=2) + "\n"


@dataclass(frozen=True)
class EvaluateResult(Made):
    """What ``evaluate`` ends with: where the results lie, and the results."""

    results: Results


def read_results(path: Path) -> Results:
    """The results in an artifact of ``evaluate``.

    Raises:
        InputError: there is no artifact.
        ArtifactError: it is of another kind, does not verify, or was written by a newer version.
    """
    open_artifact(path, KIND)
    file = path / RESULTS_FILE
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > RESULTS_SCHEMA:
            raise ArtifactError(
                f"'{path}' was written by a newer ogpsa (results {version}; this one reads {RESULTS_SCHEMA})",
                fix="upgrade ogpsa",
            )
        return Results.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            f"'{file}' is not in the results format: {first['msg']}",
            where=place or str(file),
            fix="evaluate the model again",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"'{file}' cannot be read: {first_line(error)}", where=str(file)) from error


def comparable(first: Results, second: Results) -> list[str]:
    """Reasons why the figures of two results must not be compared; none: they may.

    Only suites that both have are looked at; having none in common is a reason.
    """
    shared = [suite.suite for suite in first.suites if second.suite(suite.suite) is not None]
    if not shared:
        return [f"{first.run} and {second.run} have no suite in common"]
    return [reason for name in shared for reason in _differences(first, second, name)]


def _differences(first: Results, second: Results, name: str) -> Iterator[str]:
    ours, theirs = first.suite(name), second.suite(name)
    assert ours is not None
    assert theirs is not None
    for field in SuiteSettings.model_fields:
        mine, other = getattr(ours.settings, field), getattr(theirs.settings, field)
        if mine != other:
            label = field.replace("_", " ")
            words = f"{describe_setting(mine)} for {first.run} and {describe_setting(other)} for {second.run}"
            yield f"{name}: {label} is {words}"


def describe_setting(value: object) -> str:
    """A setting for people: hashes shortened."""
    text = str(value)
    return text[:12] + "..." if len(text) == 64 else text  # hashes


def refuse_unlike(results: Sequence[Results]) -> None:
    """Check that a set of results may stand in one table.

    Raises:
        InputError: two of them have unlike settings; every difference is named.
    """
    reasons = [reason for other in results[1:] for reason in comparable(results[0], other)]
    if reasons:
        raise InputError(
            "these results cannot be compared:" + "".join(f"\n  - {reason}" for reason in reasons),
            fix="evaluate the models again with the same suites, data, template and options",
        )


def hash_items(items: Iterable[Any]) -> str:
    """SHA-256 over JSON-ready items in order: equal for the same questions, whatever template they are put in."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, ensure_ascii=False, sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def hash_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of how a tokenizer splits text."""
    return hash_text(tokenizer.backend_tokenizer.to_str())
