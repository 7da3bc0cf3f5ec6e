"""Columns that judge an answer: verdicts, labels, moderation and scores, known by their names, and what they say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from data_registry.formats.meanings import PAIR, Kind, Meaning
from data_registry.values import as_mark, as_number

_ANSWER: Final = frozenset({"response", "answer", "completion", "output", "assistant", "reply", "generation"})
_QUESTION: Final = frozenset({"prompt", "question", "query", "user", "instruction"})
_GOOD: Final = frozenset({"safe", "harmless", "correct", "acceptable", "accepted", "approved"})
_BAD: Final = frozenset({"unsafe", "harmful", "toxic", "incorrect", "wrong", "flagged", "hallucinated", "unacceptable"})
_VERDICT: Final = frozenset({"label", "verdict", "judgement", "judgment", "harm", "safety", "classification"})
_SCORE: Final = frozenset({"score", "scores", "rating", "ratings", "reward", "quality", "helpfulness", "toxicity"})
_OTHER_ANSWER: Final = re.compile(r"(?:response|answer|completion|output)_?(?:\d{1,2}|[a-d])")
_LONGEST: Final = 80
# As JSON and Python write it, of which CSV files hold either.
_FLAG: Final = re.compile(r"""["']flagged["']\s*:\s*(true|false|0|1)""", re.IGNORECASE)

_GOOD_WORDS: Final = frozenset(
    {
        *(
            "safe",
            "harmless",
            "unharmful",
            "not harmful",
            "non harmful",
            "benign",
            "non toxic",
            "nontoxic",
            "not toxic",
        ),
        *("acceptable", "correct", "good", "accepted", "approved", "desirable"),
    }
)
_BAD_WORDS: Final = frozenset(
    {
        *("unsafe", "harmful", "toxic", "malicious", "hateful", "offensive", "not safe", "non safe", "controversial"),
        *("unacceptable", "incorrect", "wrong", "bad", "rejected", "undesirable", "flagged", "hallucinated"),
    }
)

_APPROVED: Final = Meaning(Kind.APPROVED, "says whether the answer is a good one", by_value=True)
_CONDEMNED: Final = Meaning(Kind.CONDEMNED, "says whether the answer is a bad one", by_value=True)
_OF_ANSWER: Final = Meaning(Kind.VERDICT, "judges the answer", by_value=True)
_LABELLED: Final = Meaning(Kind.LABELLED, "judges the row", by_value=True)
_SUSPECT: Final = Meaning(Kind.SUSPECT, "marks rows that are bad", by_value=True)
_SCORED: Final = Meaning(Kind.REFUSED, "says how good the answer is, however low that may be", by_value=True)
_OPTION: Final = Meaning(
    Kind.REFUSED, "offers choices, which belong to the question", remedy="--format choices reads a list of them"
)

SUSPECTS: Final[Mapping[str, Meaning]] = dict.fromkeys(
    (
        *("toxic", "is_toxic", "toxicity", "toxicity_score", "harmful", "is_harmful", "harmfulness", "harm_score"),
        *("unsafe", "is_unsafe", "flagged", "is_flagged", "offensive", "is_offensive"),
    ),
    _SUSPECT,
)
"""Marks of rows or of single messages of which yes, or any number above 0, speaks against them."""

JUDGEMENTS: Final[Mapping[str, Meaning]] = {
    **SUSPECTS,
    **dict.fromkeys(
        (
            *("final_label", "safety_label", "harm_label", "safety", "human_label", "judge_label", "verdict"),
            *("judgement", "judgment"),
        ),
        _LABELLED,
    ),
    **dict.fromkeys(
        (
            *("helpfulness", "correctness", "coherence", "harmlessness", "honesty", "truthfulness", "safety_score"),
            *("min_harmlessness_score_transcript", "severity_level", "chosen_by_annotator"),
        ),
        _SCORED,
    ),
}
"""What columns say of a row that is learnt as it stands, whatever its format."""

SCORES: Final[Mapping[str, Meaning]] = dict.fromkeys(
    (
        *("score", "scores", "rating", "ratings", "quality", "quality_score", "reward", "rewards", "rank", "grade"),
        *("overall_score", "average_score", "avg_score", "overall", "stars", "upvotes", "is_preferred"),
    ),
    _SCORED,
)
"""Scores of which nothing but the company of an answer says what they are about."""

OPTIONS: Final[Mapping[str, Meaning]] = dict.fromkeys(
    (
        *("options", "choices", "choice_list", "candidates", "endings", "distractors"),
        *(f"{what}{letter}" for what in ("", "option_", "choice_", "option") for letter in "abcd"),
        *(f"{what}_{number}" for what in ("option", "choice") for number in range(1, 6)),
    ),
    _OPTION,
)
"""Columns with the choices of a question."""


def judgement_of(name: str) -> Meaning | None:
    """What a column of this normal name says of the answer, as far as the parts of the name tell it.

    ``response_harm_label`` and ``is_answer_correct`` judge the answer; ``correct_answer`` is one.
    """
    if len(name) > _LONGEST:
        return None
    if name.endswith("moderation"):
        return _SUSPECT
    if _OTHER_ANSWER.fullmatch(name):
        return PAIR
    words = name.split("_")
    place = next((place for place, word in enumerate(words) if word in _ANSWER), None)
    # Whether an answer refuses says nothing of whether it should.
    if place is None or not _QUESTION.isdisjoint(words) or "refusal" in words:
        return None
    after = set(words[place + 1 :])
    if after & _SCORE or words[0] in _SCORE:
        return _SCORED
    if after & _VERDICT:
        return _OF_ANSWER
    if after & _BAD:
        return _CONDEMNED
    return _APPROVED if after & _GOOD else None


def judged_good(kind: Kind, value: object) -> bool | None:
    """Whether a value speaks for its row (True) or against it (False); None where it cannot be told.

    Args:
        kind: the kind of the column.
        value: a value that says something.
    """
    mark, number = as_mark(value), as_number(value)
    if kind is Kind.DESIRED:
        return mark
    if kind is Kind.UNDESIRED:
        return None if mark is None else not mark
    if kind is Kind.LEARNT:
        return False if number == 0 else True if number == 1 else None
    if kind is Kind.NUMBER:
        return True if number == 0 else None
    if kind in (Kind.VERDICT, Kind.LABELLED):
        return _word(value)
    if kind in (Kind.APPROVED, Kind.JUDGED):
        return mark if _word(value) is None else _word(value)
    if kind in (Kind.CONDEMNED, Kind.SUSPECT):
        return _acquitted(value, mark, number)
    return None


def _acquitted(value: object, mark: bool | None, number: float | None) -> bool | None:
    """Whether a mark of what is bad speaks for the row."""
    if _word(value) is not None:
        return _word(value)
    if mark is not None:
        return not mark
    if number is not None:
        return not number > 0
    flags = _flags(value)
    return not any(flags) if flags else None


def _word(value: object) -> bool | None:
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    word = " ".join(re.split(r"[\s_\-]+", value.strip().lower()))
    return True if word in _GOOD_WORDS else False if word in _BAD_WORDS else None


def _flags(value: object) -> list[bool]:
    """The marks ``flagged`` of a moderation: a mapping, a list of one for each message, or the text of either."""
    if isinstance(value, str):
        return [mark.lower() in ("true", "1") for mark in _FLAG.findall(value)]
    parts = value if isinstance(value, list) else [value]
    marks = [as_mark(part.get("flagged")) for part in parts if isinstance(part, Mapping)]
    return [mark for mark in marks if mark is not None]
