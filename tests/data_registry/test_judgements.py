"""What names of columns say of an answer, and what their values say."""

from __future__ import annotations

import pytest

from data_registry.formats.judgements import judged_good, judgement_of
from data_registry.formats.meanings import Kind

NAMES = {
    "response_label": Kind.VERDICT,
    "response_harm_label": Kind.VERDICT,
    "assistant_safety": Kind.VERDICT,
    "is_answer_correct": Kind.APPROVED,
    "completion_is_toxic": Kind.CONDEMNED,
    "response_score": Kind.REFUSED,
    "score_response": Kind.REFUSED,
    "openai_moderation": Kind.SUSPECT,
    "response_2": Kind.REFUSED,
    "answer_b": Kind.REFUSED,
}


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_names_that_judge_an_answer(name: str, kind: Kind) -> None:
    meaning = judgement_of(name)
    assert meaning is not None
    assert meaning.kind is kind


@pytest.mark.parametrize(
    "name",
    [
        "correct_answer",
        "safe_response",
        "prompt_harm_label",
        "response",
        "answer_index",
        "response_refusal_label",
        "harm",
    ],
)
def test_names_of_answers_and_of_questions_judge_none(name: str) -> None:
    assert judgement_of(name) is None


FLAGGED = [{"flagged": False}, {"flagged": True}]
VALUES = [
    (Kind.VERDICT, "unsafe", False),
    (Kind.VERDICT, "Not-Harmful", True),
    (Kind.VERDICT, "1_full_compliance", None),
    (Kind.VERDICT, 1, None),
    (Kind.LABELLED, "toxic", False),
    (Kind.APPROVED, "no", False),
    (Kind.APPROVED, True, True),
    (Kind.CONDEMNED, True, False),
    (Kind.CONDEMNED, "harmless", True),
    (Kind.JUDGED, False, False),
    (Kind.JUDGED, "maybe", None),
    (Kind.SUSPECT, 0.3, False),
    (Kind.SUSPECT, 0.0, True),
    (Kind.SUSPECT, FLAGGED, False),
    (Kind.SUSPECT, FLAGGED[:1], True),
    (Kind.SUSPECT, '[{"flagged": true}]', False),
    (Kind.SUSPECT, "[{'flagged': False}]", True),
    (Kind.SUSPECT, [{"score": 1}], None),
    (Kind.DESIRED, "unsafe", None),
    (Kind.LEARNT, 0, False),
    (Kind.LEARNT, 0.5, None),
    (Kind.NUMBER, 0, True),
    (Kind.REFUSED, 5, None),
]


@pytest.mark.parametrize(("kind", "value", "good"), VALUES)
def test_what_values_say(kind: Kind, value: object, good: bool | None) -> None:
    assert judged_good(kind, value) is good
