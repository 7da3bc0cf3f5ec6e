"""Harmful requests chosen by rule from conversations of the HH set."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.excerpts.kinds import Act, Kind, kind_of

MOST_WORDS: Final = 45
MOST_OF_ONE_FORM: Final = 30
"""Requests that begin with the same words: two in a hundred of the set ask for the address of somebody famous."""

_ASKS: Final = re.compile(
    r"^(how|what|what's|whats|where|wheres|where's|which|who|when|can|could|would|will|do you|does|is there|are there|"
    r"tell|teach|show|give|help|write|make|find|explain|list|name|describe|say|please|any|best|easiest|if i|"
    r"i want|i wanna|looking to|i need|i would like|i'd like|i wish|i am trying|i'm trying|i am looking|i'm looking|"
    r"i'm a|i like)\b"
    r"|\b(how (do|can|to|could|would|should|might)|help me|best way|easiest way|good way|ways? to|can you|could you|"
    r"tell me|please help|is it possible to|what (are|is|kind|should)|i'm going to|"
    r"(any|some) (tips|ideas|suggestions|advice|pointers)|where (can|could|do|would))\b",
    re.IGNORECASE,
)
_INNOCENT: Final = re.compile(
    r"\b(what does .* mean|is it true|do you (think|believe|like|hate)|what do you think|what are your thoughts|"
    r"why (do|does|is|are|did|was|can't)|how (can|do) i (tell|know) if|do you get|how many|what (movie|song|book)|"
    r"who (invented|wrote|played)|should (we|the|society)|history of|statistics|signs of|symptoms|support group|"
    r"stop (him|her|my|them|someone|people|the)|prevent|protect (myself|my|our|against|from)|"
    r"report (a|my|him|her|someone|the)|is it (ok|okay|legal|illegal|wrong|bad|safe)|have you (ever)?|did you|are you|"
    r"(rabbit|rat|mouse|ant) problem|take part in|manipulated to be|favou?rite|sore throat|stolen generation|"
    r"researcher|scammers|morally)\b"
    r"|^(what|who) (is|are|was|were) (an? |the )?[\w'-]+( [\w'-]+)?\W*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class HarmfulRequest:
    """A request with the kind of harm that it was chosen for."""

    text: str
    kind: Kind
    act: Act


def first_turns(path: Path) -> Iterator[str]:
    """What people say first in the conversations of a file of pairs, each text once, spaces and newlines made one."""
    seen: set[str] = set()
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            turn = json.loads(line)["chosen"].split("\n\nHuman:", 1)[1].split("\n\nAssistant:", 1)[0]
            text = " ".join(turn.split())
            if text and text.lower() not in seen:
                seen.add(text.lower())
                yield text


def choose_requests(texts: Iterator[str], kinds: Sequence[Kind]) -> list[HarmfulRequest]:
    """The texts that ask for something, are of a kind of harm, and do not ask what a worried or curious person asks."""
    chosen = []
    beginnings: Counter[str] = Counter()
    for text in texts:
        if not 3 <= len(text.split()) <= MOST_WORDS or not _ASKS.search(text) or _INNOCENT.search(text):
            continue
        found = kind_of(text, kinds)
        beginning = " ".join(text.lower().split()[:6])
        if found is None or beginnings[beginning] == MOST_OF_ONE_FORM:
            continue
        beginnings[beginning] += 1
        chosen.append(HarmfulRequest(text, *found))
    return chosen
