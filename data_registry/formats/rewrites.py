"""The format of corrected answers, of which a rewriter is trained: rewrite."""

from __future__ import annotations

from typing import Final

from data_registry.formats.layout import MESSAGE_TAGS, Fields, Format, Tags, as_messages, is_text, text
from data_registry.formats.rewriting import question_text, rewriter_prompt
from data_registry.schema import EMPTY, ROLES, UNDECIDED, Message, RejectedRow, Row, Task, message, sft_row

_FIELDS: Final = ("question", "solution", "prediction", "correction")


def read_rewrite(fields: Fields, task: Task, tags: Tags) -> Row:
    """A rewriter's row: asked to correct the prediction, given the solution, and answered by the correction.

    Each field is text; or messages, as prepared data have them: the question a conversation, the others one answer.

    Raises:
        RejectedRow: a field is empty or no text, or the correction changes nothing.
    """
    messages = as_messages(fields["question"], MESSAGE_TAGS) if isinstance(fields["question"], list) else None
    question = text(fields["question"], "question") if messages is None else question_text(messages)
    solution, prediction, correction = (_answer(fields[name], name) for name in _FIELDS[1:])
    for name, value in zip(_FIELDS, (question, solution, prediction, correction), strict=True):
        if not value.strip():
            raise RejectedRow(EMPTY, f"the {name} is empty")
    if prediction.strip() == correction.strip():
        raise RejectedRow(UNDECIDED, "the correction is the prediction itself, which is to be corrected")
    asked = rewriter_prompt(question, solution, prediction)
    return sft_row([message("user", asked), message("assistant", correction)])


def _answer(value: object, name: str) -> str:
    if not isinstance(value, list):
        return text(value, name)
    messages: list[Message] = as_messages(value, MESSAGE_TAGS)
    if len(messages) != 1:
        raise RejectedRow(ROLES, f"the {name} has {len(messages)} messages, where one answer is expected")
    return messages[0]["content"]


REWRITE: Final = Format(
    "rewrite",
    "question, solution, prediction and correction: what a rewriter learns, which corrects a wrong prediction",
    ("sft",),
    {name: (name,) for name in _FIELDS},
    _FIELDS,
    read_rewrite,
    lambda fields: all(is_text(fields[name]) for name in _FIELDS),
)
