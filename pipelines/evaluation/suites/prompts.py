"""Suites of prompt sets: harmful compliance and over-refusal, by a judge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError

from data_registry.core.documents import explain, parse, read_text
from data_registry.core.errors import ConfigError
from data_registry.core.manifest import InputRecord
from data_registry.formats.prompt_sets import GROUPS, PromptLayout
from data_registry.prompts.reading import read_prompt_set
from data_registry.prompts.specs import Prompt, PromptSet, PromptSetSpec, PromptSuiteSpec
from pipelines.evaluation.contract.answer import Decoding, StoredAnswer
from pipelines.evaluation.contract.hashes import hash_items
from pipelines.evaluation.contract.judge import Judge, Judged
from pipelines.evaluation.contract.results import SuiteSettings
from pipelines.evaluation.contract.suite import GeneratingSuite, PromptItem, SuiteOutcome, SuiteRequest
from pipelines.evaluation.judges.judging import judged_outcome

VERSION: Final = "1"
SAFETY: Final = "safety"
PROMPTS: Final = "prompts"
SAFETY_SETS: Final = ("xstest", "harmbench", "strongreject", "advbench", "wildjailbreak")


def safety(request: SuiteRequest) -> PromptSuite:
    """The suite ``safety``."""
    return PromptSuite(request, registry_spec(SAFETY_SETS))


def registry_spec(names: Sequence[str]) -> PromptSuiteSpec:
    """Prompt sets of the registry; their figures have the same names whichever are asked for together."""
    return PromptSuiteSpec(name=SAFETY, sets=[PromptSetSpec(data=name) for name in names])


def local_prompts(request: SuiteRequest) -> PromptSuite:
    """The suite ``prompts``: files named on the command line, of which it is said whether a model should refuse.

    Raises:
        ConfigError: there are none, or two have one name.
    """
    return PromptSuite(request, files_spec(request.harmful, request.harmless))


def files_spec(harmful: Sequence[Path], harmless: Sequence[Path]) -> PromptSuiteSpec:
    """The specification of local files.

    Raises:
        ConfigError: there are none, or two have one name.
    """
    sets = [
        PromptSetSpec(data=str(path.absolute()), layout=PromptLayout(harmful=is_harmful))
        for paths, is_harmful in ((harmful, True), (harmless, False))
        for path in paths
    ]
    if not sets:
        raise ConfigError("suite 'prompts' needs files with prompts: --harmful FILE or --harmless FILE")
    try:
        return PromptSuiteSpec(name=PROMPTS, sets=sets)
    except ValidationError as error:
        raise ConfigError(
            f"--harmful and --harmless: {explain(error, PromptSuiteSpec)[0]}", fix="rename one of the files"
        ) from error


def read_suite_file(path: Path) -> PromptSuiteSpec:
    """A suite from its YAML file.

    Raises:
        InputError: it cannot be read.
        ConfigError: it is no suite; with all problems.
    """
    text = read_text(path, "suite file")
    return parse(PromptSuiteSpec, text, what="suite file", where=str(path), defaults={"name": path.stem})


class PromptSuite(GeneratingSuite):
    """The prompt sets of a specification, answered, and judged.

    Args:
        request: how.
        spec: what is asked.
        base: folder that relative paths of the specification start from.
    """

    is_judged = True

    def __init__(self, request: SuiteRequest, spec: PromptSuiteSpec, base: Path | None = None) -> None:
        self._request, self._spec = request, spec
        self._sets = [read_prompt_set(entry, base) for entry in spec.sets]
        self._prompts = {entry.name: _draw(entry.prompts, request) for entry in self._sets}

    @property
    def decoding(self) -> Decoding:
        """See the base class."""
        return self._request.decoding(self._spec.max_new_tokens)

    def names(self) -> list[str]:
        """The names of its results."""
        return [self._name(entry) for entry in self._sets]

    def inputs(self) -> list[InputRecord]:
        """The prompt sets, and what is made of them."""
        asked = hash_items([item.suite, item.id, item.group, list(item.messages)] for item in self.items())
        return [
            *(
                record.model_copy(update={"role": f"prompts {entry.name}"})
                for entry in self._sets
                for record in entry.inputs
            ),
            InputRecord(role=f"suite {self._spec.name}", path=self._spec.name, kind="prompts", fingerprint=asked),
        ]

    def plan(self) -> list[tuple[str, str]]:
        """Prompts by group."""
        rows = []
        for entry in self._sets:
            prompts = self._prompts[entry.name]
            parts = [f"{sum(prompt.group == group for prompt in prompts)} {group}" for group in GROUPS]
            text = f"{' and '.join(part for part in parts if not part.startswith('0 '))} prompts"
            rows.append((self._name(entry), f"{text}, {self.decoding.describe()}"))
        return rows

    def items(self) -> list[PromptItem]:
        """See the base class."""
        return [
            PromptItem(
                self._name(entry),
                prompt.id,
                prompt.group,
                self._messages(prompt),
                prompt.category,
                context=prompt.context,
            )
            for entry in self._sets
            for prompt in self._prompts[entry.name]
        ]

    def check_judge(self, judge: Judge) -> None:
        """Refuse a judge that has nothing to say about a set.

        Raises:
            ConfigError: the set has no prompts of a group that it judges.
        """
        for entry in self._sets:
            if not entry.groups & judge.groups:
                raise ConfigError(
                    f"the judge '{judge.name}' judges answers to {' and '.join(sorted(judge.groups))} prompts, and "
                    f"'{entry.name}' has only {' and '.join(sorted(entry.groups))} ones",
                    fix="use --judge refusal",
                )

    def score(self, answers: Sequence[StoredAnswer], template_hash: str, judged: Judged | None) -> list[SuiteOutcome]:
        """See the base class."""
        assert judged is not None, "a judged suite gets a judge"
        return [
            judged_outcome(
                self._settings(entry, template_hash, judged.judge),
                self._name(entry),
                [answer for answer in answers if answer.suite == self._name(entry)],
                judged.judgements,
                resamples=self._request.resamples,
                seed=self._request.seed,
            )
            for entry in self._sets
        ]

    def _settings(self, entry: PromptSet, template_hash: str, judge: str) -> SuiteSettings:
        return SuiteSettings(
            version=VERSION,
            split=entry.split,
            prompt_hash=hash_items([p.id, p.group, list(self._messages(p))] for p in self._prompts[entry.name]),
            template_hash=template_hash,
            decoding=self.decoding.describe(),
            scoring=f"judge {judge}",
        )

    def _name(self, entry: PromptSet) -> str:
        return f"{self._spec.name}/{entry.name}"

    def _messages(self, prompt: Prompt) -> tuple[dict[str, str], ...]:
        system = self._request.system or self._spec.system
        first = [{"role": "system", "content": system}] if system else []
        return (*first, {"role": "user", "content": prompt.text})


def _draw(prompts: Sequence[Prompt], request: SuiteRequest) -> list[Prompt]:
    """At most so many prompts of each group, a seeded draw, in their order."""
    if request.num_samples is None:
        return list(prompts)
    return [prompts[index] for index in sorted(_drawn(prompts, request.num_samples, request.seed))]


def _drawn(prompts: Sequence[Prompt], limit: int, seed: int) -> Iterable[int]:
    for group in GROUPS:
        members = [index for index, prompt in enumerate(prompts) if prompt.group == group]
        order = np.random.default_rng(seed).permutation(len(members))[:limit]
        yield from (members[position] for position in order)
