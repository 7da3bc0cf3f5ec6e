"""Formats with a prompt and one answer: alpaca, prompt-completion, gsm8k, question-answer, prompt-response."""

from __future__ import annotations

import re
from typing import Final

from data_registry.formats.judgements import JUDGEMENTS, OPTIONS, SCORES
from data_registry.formats.layout import (
    ASKED,
    MESSAGE_TAGS,
    Fields,
    Format,
    Tags,
    as_messages,
    is_messages,
    is_text,
    opening,
    system_before,
    text,
)
from data_registry.formats.meanings import MEANINGS
from data_registry.formats.transcripts import continued, is_transcript
from data_registry.schema import EMPTY, MEANING, UNREADABLE, Message, RejectedRow, Row, Task, message, sft_row
from data_registry.values import says_something

# 16 - 3 - 4 = <<16-3-4=9>>9: for a calculator that stands beside the model, not for the reader.
_CALCULATION: Final = re.compile(r"<<[^<>]*>>")
_RESULT: Final = "\n#### "


_TOLD: Final = {**OPTIONS, **MEANINGS}


def read_alpaca(fields: Fields, task: Task, tags: Tags) -> Row:
    """``instruction``, with ``input`` on the next line where it is not empty, answered by ``output``."""
    return read_question_answer(fields, task, tags)


def read_question_answer(fields: Fields, task: Task, tags: Tags) -> Row:
    """A question and its answer."""
    return sft_row(exchange(fields, text(fields.get("response"), "response")))


def exchange(fields: Fields, answer: str) -> list[Message]:
    """The conversation of a prompt in text and an answer; of a prompt that is a transcript, the turns taken apart.

    Raises:
        RejectedRow: there is no question, or it cannot be told how its parts belong together.
    """
    prompt = fields.get("prompt")
    if is_transcript(prompt):
        check_alone(fields)
        return system_before(fields, continued(str(prompt), answer))
    return [*opening(fields), message("user", question_of(fields)), message("assistant", answer)]


def question_of(fields: Fields) -> str:
    """The user's text: a context and a blank line, then prompt and query on lines of their own, whichever are there.

    Raises:
        RejectedRow: prompt and query are empty.
    """
    parts = [text(fields.get(name), name) for name in ("prompt", "query")]
    question = "\n".join(part for part in parts if part.strip())
    if not question:
        raise RejectedRow(EMPTY, "the prompt is empty")
    context = text(fields.get("context"), "context").strip("\n")
    return f"{context}\n\n{question}" if context.strip() else question


def check_alone(fields: Fields) -> None:
    """Refuse parts of a question beside a prompt that consists of messages: where they belong cannot be told.

    Raises:
        RejectedRow: there are such parts.
    """
    for name in ("query", "context"):
        if says_something(fields.get(name)):
            raise RejectedRow(
                MEANING, f"beside a prompt that is a conversation, there is no place for the {name} of the row"
            )


def read_prompt_completion(fields: Fields, task: Task, tags: Tags) -> Row:
    """A prompt and its completion, each text or messages."""
    prompt, completion = fields.get("prompt"), fields.get("completion")
    if isinstance(prompt, list) != isinstance(completion, list):
        raise RejectedRow(UNREADABLE, "of prompt and completion, one is text and the other a list")
    if isinstance(prompt, list):
        check_alone(fields)
        messages = as_messages(prompt, MESSAGE_TAGS) + as_messages(completion, MESSAGE_TAGS)
        return sft_row(system_before(fields, messages))
    return sft_row(exchange(fields, text(completion, "completion")))


def read_gsm8k(fields: Fields, task: Task, tags: Tags) -> Row:
    """A word problem and its worked answer, without the calculator's annotations; the ``####`` line stays."""
    answer = text(fields.get("response"), "response")
    if _RESULT not in answer:
        raise RejectedRow(UNREADABLE, "the answer has no line '#### result'")
    return read_question_answer({**fields, "response": _CALCULATION.sub("", answer)}, task, tags)


def _is_gsm8k(fields: Fields) -> bool:
    return is_text(fields["prompt"]) and isinstance(fields["response"], str) and _RESULT in fields["response"]


ALPACA: Final = Format(
    "alpaca",
    "instruction, input (may be empty) and output; also system and history",
    ("sft",),
    {
        "prompt": ("instruction",),
        "response": ("output",),
        **ASKED,
    },
    ("prompt|query", "response"),
    read_alpaca,
    lambda fields: "prompt" in fields and is_text(fields["prompt"]) and isinstance(fields["response"], str),
    _TOLD,
    # Alpaca's own rows have the whole prompt written out besides.
    ignores=frozenset({"text"}),
)
PROMPT_COMPLETION: Final = Format(
    "prompt-completion",
    "prompt and completion, each text or a list of messages",
    ("sft",),
    {"prompt": ("prompt",), "completion": ("completion",), **ASKED},
    ("prompt", "completion"),
    read_prompt_completion,
    lambda fields: all(is_text(fields[name]) or is_messages(fields[name]) for name in ("prompt", "completion")),
    _TOLD,
)
GSM8K: Final = Format(
    "gsm8k",
    "question and answer that ends with a line '#### result'; calculator annotations <<...>> are taken out",
    ("sft",),
    {"prompt": ("question",), "response": ("answer",), **ASKED},
    ("prompt", "response"),
    read_gsm8k,
    _is_gsm8k,
    _TOLD,
)
QUESTION_ANSWER: Final = Format(
    "qa",
    "a question and its answer (question/answer, user_query/chatgpt_response, query/response, question/right_answer)",
    ("sft",),
    {
        "prompt": ("question", "user_query", "query"),
        "response": ("answer", "chatgpt_response", "response", "right_answer"),
        **ASKED,
    },
    ("prompt", "response"),
    read_question_answer,
    lambda fields: is_text(fields["prompt"]) and is_text(fields["response"]) and not _is_gsm8k(fields),
    _TOLD,
    ignores=frozenset({"hallucination_spans"}),
)
PROMPT_RESPONSE: Final = Format(
    "prompt-response",
    "a question and its answer by any usual names (prompt/response, instruction/response, input/output, ...)",
    ("sft",),
    {
        "prompt": (
            *("instruction", "prompt", "question", "query", "problem", "user", "human", "user_input", "user_prompt"),
            *("user_message", "instructions", "inputs", "input_text"),
        ),
        "response": (
            *("response", "output", "answer", "completion", "solution", "assistant", "gpt", "reply", "model_output"),
            *("assistant_response", "assistant_message", "model_response", "response_text", "outputs", "output_text"),
        ),
        **ASKED,
    },
    ("prompt|query", "response"),
    read_question_answer,
    lambda fields: is_text(fields.get("prompt", fields.get("query"))) and is_text(fields["response"]),
    _TOLD,
    judgements={**SCORES, **JUDGEMENTS},
    last=True,
)
