"""Suite ``instructions``: simple instructions answered freely, and checked by a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord
from data_registry.core.yaml_text import parse_yaml
from pipelines.evaluation.contract.answer import AnsweredItem, Decoding, StoredAnswer
from pipelines.evaluation.contract.results import SuiteResults, SuiteSettings, hash_items
from pipelines.evaluation.contract.suite import GeneratingSuite, PromptItem, SuiteOutcome, SuiteRequest
from pipelines.evaluation.contract.verdict import Judged
from pipelines.evaluation.statistics.figures import share, shares_by_category
from pipelines.evaluation.suites.instruction_checks import follows

NAME: Final = "instructions"
VERSION: Final = "1"
MAX_NEW_TOKENS: Final = 96
FILE: Final = Path(__file__).with_name("instructions.yaml")


@dataclass(frozen=True)
class Instruction:
    """One instruction: what is asked, and how the answer is checked."""

    id: str
    ask: str
    check: str
    value: Any
    about: tuple[str, ...]


@cache
def read_instructions() -> tuple[Instruction, ...]:
    """All instructions, in the order of their file."""
    rows = parse_yaml(FILE.read_text(encoding="utf-8"), where=str(FILE))
    return tuple(
        Instruction(f"{number:03d}", row["ask"], row["check"], row["value"], tuple(row.get("about", ())))
        for number, row in enumerate(rows, start=1)
    )


class InstructionsSuite(GeneratingSuite):
    """The instructions that come with ogpsa, all or a seeded draw."""

    def __init__(self, request: SuiteRequest) -> None:
        self._request = request
        self._asked = _draw(read_instructions(), request)

    @property
    def decoding(self) -> Decoding:
        """See the base class."""
        return self._request.decoding(MAX_NEW_TOKENS)

    def inputs(self) -> list[InputRecord]:
        """The instructions, by what they ask and check."""
        asked = hash_items([item.id, item.ask, item.check, item.value, list(item.about)] for item in self._asked)
        return [InputRecord(role="suite", path=NAME, kind="suite", fingerprint=asked)]

    def plan(self) -> list[tuple[str, str]]:
        """How many are asked, and how answers are made."""
        return [(NAME, f"{len(self._asked)} instructions, {self.decoding.describe()}")]

    def items(self) -> list[PromptItem]:
        """See the base class."""
        system = self._request.system
        first = ({"role": "system", "content": system},) if system else ()
        return [
            PromptItem(NAME, item.id, NAME, (*first, {"role": "user", "content": item.ask}), item.check)
            for item in self._asked
        ]

    def score(self, answers: Sequence[StoredAnswer], template_hash: str, judged: Judged | None) -> list[SuiteOutcome]:
        """See the base class."""
        by_id = {item.id: item for item in self._asked}
        given = [answer for answer in answers if answer.suite == NAME and answer.answer is not None]
        if not given:
            raise InputError("no instruction could be answered", where="all prompts exceed the model's context")
        rules = [by_id[answer.id] for answer in given]
        scores = np.array(
            [
                float(follows(answer.answer or "", rule.check, rule.value, rule.about))
                for answer, rule in zip(given, rules, strict=True)
            ]
        )
        limits = {"resamples": self._request.resamples, "seed": self._request.seed}
        results = SuiteResults(
            suite=NAME,
            settings=SuiteSettings(
                version=VERSION,
                split="all",
                prompt_hash=hash_items([item.id, list(item.messages)] for item in self.items()),
                template_hash=template_hash,
                decoding=self.decoding.describe(),
                scoring="a program's check of each instruction, and a word of the matter",
            ),
            metrics=(
                share("followed", scores, NAME, higher_is_better=True, **limits),
                *shares_by_category(
                    "followed", scores, [rule.check for rule in rules], NAME, higher_is_better=True, **limits
                ),
            ),
            counts={"cut_off": sum(answer.finish == "length" for answer in given)},
        )
        items = [
            AnsweredItem(NAME, answer.id, NAME, answer.prompt, answer.answer or "", None, score, category=rule.check)
            for answer, rule, score in zip(given, rules, scores.tolist(), strict=True)
        ]
        return [SuiteOutcome(results, items)]


def _draw(instructions: Sequence[Instruction], request: SuiteRequest) -> list[Instruction]:
    if request.num_samples is None or request.num_samples >= len(instructions):
        return list(instructions)
    order = np.random.default_rng(request.seed).permutation(len(instructions))[: request.num_samples]
    return [instructions[index] for index in sorted(order)]
