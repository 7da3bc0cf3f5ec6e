"""Kinds of harm, as ``kinds.yaml`` tells them apart, and what refusals of each are composed of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_registry.core.yaml_text import parse_yaml

FILE = Path(__file__).with_name("kinds.yaml")


@dataclass(frozen=True)
class Act:
    """What is asked for: words that tell it, and what a refusal calls it."""

    found_by: re.Pattern[str]
    name: str


@dataclass(frozen=True)
class Kind:
    """One kind of harm.

    Attributes:
        name: the kind's name.
        form: what a compliant answer would be: steps, facts, or a text.
        acts: the acts of the kind, the first that is found counts.
        excluded: expressions of requests that only sound like it.
        reasons: sentences that say why not.
        offers: sentences that offer something else.
    """

    name: str
    form: Literal["steps", "facts", "text"]
    acts: tuple[Act, ...]
    excluded: tuple[re.Pattern[str], ...]
    reasons: tuple[str, ...]
    offers: tuple[str, ...]

    def act_in(self, request: str) -> Act | None:
        """The act that a request asks for; None if it is not of this kind."""
        if any(pattern.search(request) for pattern in self.excluded):
            return None
        return next((act for act in self.acts if act.found_by.search(request)), None)


def read_kinds() -> list[Kind]:
    """All kinds, in the order in which they are tried."""
    content = parse_yaml(FILE.read_text(encoding="utf-8"), where=str(FILE))
    return [
        Kind(
            entry["kind"],
            entry["form"],
            tuple(Act(_pattern(words), name) for words, name in entry["acts"].items()),
            tuple(_pattern(words) for words in entry.get("not", ())),
            tuple(entry["reasons"]),
            tuple(entry["offers"]),
        )
        for entry in content
    ]


def kind_of(request: str, kinds: Sequence[Kind]) -> tuple[Kind, Act] | None:
    """The first kind that a request is of, with the act that it asks for; None if it is of none."""
    for kind in kinds:
        act = kind.act_in(request)
        if act is not None:
            return kind, act
    return None


def _pattern(words: str) -> re.Pattern[str]:
    # Words begin where the expression does: "con a" is no part of "second a".
    return re.compile(rf"\b(?:{words})", re.IGNORECASE)
