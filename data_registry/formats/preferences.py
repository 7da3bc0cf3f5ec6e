"""Formats with two answers of which one is preferred: preference, saferlhf."""

from __future__ import annotations

from typing import Final

from data_registry.formats.layout import (
    ASKED,
    MESSAGE_TAGS,
    Fields,
    Format,
    Tags,
    as_message,
    as_messages,
    is_messages,
    is_text,
    opening,
    system_before,
    text,
)
from data_registry.formats.pairs import check_alone, exchange, question_of
from data_registry.formats.transcripts import is_transcript, split_pair, turns_asked
from data_registry.schema import (
    EMPTY,
    FILTERED,
    REFERENCE,
    ROLES,
    UNDECIDED,
    UNREADABLE,
    Message,
    RejectedRow,
    Row,
    Task,
    message,
    preference_row,
    sft_row,
)
from data_registry.values import as_mark, says_something


def read_preference(fields: Fields, task: Task, tags: Tags) -> Row:
    """Prompt, chosen and rejected as text or messages; whole conversations with the prompt in both will do too.

    The reference, where there is one, is text.
    """
    chosen = _conversation(fields, fields["chosen"])
    if task == "sft":
        return sft_row(chosen)
    rejected = _conversation(fields, fields.get("rejected"))
    if len(rejected) == 1 and rejected[0]["role"] == "assistant" and chosen[0]["role"] != "assistant":
        # Where the chosen one is the whole conversation, the other may be the last answer alone.
        rejected = [*chosen[:-1], *rejected]
    pair = preference_row(*split_pair(chosen, rejected))
    reference = text(fields.get(REFERENCE), REFERENCE)
    return {**pair, REFERENCE: reference} if reference.strip() else pair


def _conversation(fields: Fields, value: object) -> list[Message]:
    """The conversation that ends with an answer, which is text, a message, or the whole conversation itself."""
    prompt = fields.get("prompt")
    if isinstance(value, str) and not isinstance(prompt, list) and ("prompt" in fields or "query" in fields):
        return exchange(fields, value)
    answer = _answer(value)
    if not answer:
        raise RejectedRow(EMPTY, "an answer has no messages")
    asked = _prompt(fields)
    if answer[0]["role"] == "assistant":
        return [*asked, *answer]
    return system_before(fields, answer) if not asked else _joined(asked, answer)


def _prompt(fields: Fields) -> list[Message]:
    prompt = fields.get("prompt")
    if isinstance(prompt, list) or is_transcript(prompt):
        check_alone(fields)
        turns = as_messages(prompt, MESSAGE_TAGS) if isinstance(prompt, list) else turns_asked(str(prompt))
        return system_before(fields, turns)
    if not says_something(prompt) and not says_something(fields.get("query")):
        check_alone(fields)
        return opening(fields)
    return [*opening(fields), message("user", question_of(fields))]


def _joined(asked: list[Message], whole: list[Message]) -> list[Message]:
    """A whole conversation, with the system message of its prompt before it where it lacks that.

    Raises:
        RejectedRow: the prompt is not the beginning of it, and would be lost.
    """
    system = [entry for entry in asked[:1] if entry["role"] == "system"]
    turns, known = asked[len(system) :], whole[0]["role"] == "system"
    told = system if system and not known else []
    if system and known and whole[0] != system[0]:
        raise RejectedRow(ROLES, "prompt and answers have different system messages")
    rest = [_plain(entry) for entry in whole[known:]]
    begins = rest[: len(turns)] == [_plain(entry) for entry in turns]
    # Of conversations with several questions, some data sets repeat one of them as the prompt.
    if not begins and not (len(turns) == 1 and _plain(turns[0]) in rest):
        raise RejectedRow(ROLES, "the prompt is not part of the conversation that answers it, and would be lost")
    return [*told, *whole]


def _plain(entry: Message) -> tuple[str, str]:
    return entry["role"], " ".join(entry["content"].split())


def _answer(value: object) -> list[Message]:
    if isinstance(value, list):
        return as_messages(value, MESSAGE_TAGS)
    if isinstance(value, dict):
        return [as_message(value, MESSAGE_TAGS)]
    return [message("assistant", value)]


def read_saferlhf(fields: Fields, task: Task, tags: Tags) -> Row:
    """Two responses and the number of the safer one; for sft the safer one, where it is marked safe."""
    choice = fields["choice"]
    if isinstance(choice, str) and choice.strip() in ("0", "1"):
        choice = int(choice)
    if isinstance(choice, bool) or choice not in (0, 1):
        if choice in (None, -1):
            raise RejectedRow(UNDECIDED, "neither response is preferred")
        raise RejectedRow(UNREADABLE, f"the preferred response is {choice!r}, not 0 or 1")
    choice = int(choice)
    answers = [exchange(fields, text(fields[f"response_{index}"], f"response_{index}")) for index in (0, 1)]
    if task == "preference":
        return preference_row(*split_pair(answers[choice], answers[1 - choice]))
    if as_mark(fields.get(f"safe_{choice}", True)) is not True:
        # Both responses may be harmful: then one is the safer, but nothing to learn from as an answer.
        raise RejectedRow(FILTERED, "the safer response is not marked safe")
    return sft_row(answers[choice])


def _is_preference(fields: Fields) -> bool:
    chosen, rejected = fields["chosen"], fields["rejected"]
    if is_messages(chosen) and is_messages(rejected):
        return True
    asked = fields.get("prompt", fields.get("query"))
    if not (is_text(asked) or is_messages(asked)):
        return False
    return all(
        (isinstance(value, str) and not is_transcript(value)) or (isinstance(value, dict) and "content" in value)
        for value in (chosen, rejected)
    )


PREFERENCE: Final = Format(
    "preference",
    "prompt, chosen and rejected, each text or messages; sft takes chosen",
    ("preference", "sft"),
    {
        "prompt": ("prompt", "instruction", "question", "query", "user_input", "user_prompt"),
        "chosen": ("chosen",),
        "rejected": ("rejected",),
        REFERENCE: (REFERENCE,),
        **ASKED,
    },
    ("chosen",),
    read_preference,
    lambda fields: "rejected" in fields and _is_preference(fields),
)
SAMPLES: Final = Format(
    "samples",
    "answers that 'ogpsa sample --grade' made: pairs of a right and a wrong one",
    ("preference",),
    {name: (name,) for name in ("prompt", "chosen", "rejected", REFERENCE)},
    ("prompt", "chosen", "rejected"),
    read_preference,
    # Its rows are made of samples, and are never found in a file.
    lambda fields: False,
)
SAFERLHF: Final = Format(
    "saferlhf",
    "prompt, response_0, response_1 and safer_response_id (columns.choice=better_response_id takes the other label); "
    "sft takes the safer response where it is marked safe",
    ("preference", "sft"),
    {
        "prompt": ("prompt",),
        "response_0": ("response_0",),
        "response_1": ("response_1",),
        "choice": ("safer_response_id", "better_response_id"),
        "safe_0": ("is_response_0_safe",),
        "safe_1": ("is_response_1_safe",),
        **ASKED,
    },
    ("prompt", "response_0", "response_1", "choice"),
    read_saferlhf,
    lambda fields: True,
    ignores=frozenset(
        {
            *("safer_response_id", "better_response_id", "prompt_source"),
            *(f"response_{index}_{what}" for index in (0, 1) for what in ("source", "harm_category", "severity_level")),
        }
    ),
)
