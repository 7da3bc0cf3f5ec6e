"""Formats whose rows are conversations: messages, sharegpt, hh transcripts."""

from __future__ import annotations

from typing import Final

from data_registry.formats.layout import (
    ASKED,
    MESSAGE_TAGS,
    TAGS,
    Fields,
    Format,
    Tags,
    as_message,
    as_messages,
    is_messages,
    system_before,
)
from data_registry.formats.meanings import CONVERSATION_MEANINGS
from data_registry.formats.transcripts import is_transcript, parse_transcript, split_pair, turns_asked
from data_registry.schema import (
    ROLES,
    UNREADABLE,
    Message,
    RejectedRow,
    Row,
    Task,
    message,
    preference_row,
    sft_row,
)

_SYSTEM: Final = ASKED["system"]


def read_messages(fields: Fields, task: Task, tags: Tags) -> Row:
    """``[{"role", "content"}, ...]``."""
    return sft_row(system_before(fields, as_messages(fields["messages"], MESSAGE_TAGS)))


def read_sharegpt(fields: Fields, task: Task, tags: Tags) -> Row:
    """``[{"from", "value"}, ...]``; a ranked row has ``chosen`` and ``rejected`` answers besides."""
    messages = system_before(fields, as_messages(fields["messages"], tags))
    if "chosen" not in fields:
        if task == "preference":
            raise RejectedRow(UNREADABLE, "the conversation has no chosen and rejected answers")
        return sft_row(messages)
    chosen = _answer(fields["chosen"], tags)
    if task == "sft":
        return sft_row([*messages, *chosen])
    return preference_row(messages, chosen, _answer(fields.get("rejected"), tags))


def _answer(value: object, tags: Tags) -> list[Message]:
    if isinstance(value, str):
        return [message("assistant", value)]
    return as_messages(value, tags) if isinstance(value, list) else [as_message(value, tags)]


def read_transcripts(fields: Fields, task: Task, tags: Tags) -> Row:
    """Two transcripts of one conversation that part at its last answer, or one transcript."""
    chosen = _transcript(fields, "chosen")
    if task == "sft":
        return sft_row(chosen)
    return preference_row(*split_pair(chosen, _transcript(fields, "rejected")))


def _transcript(fields: Fields, name: str) -> list[Message]:
    """The messages of a transcript, which begins with the prompt where the row has that too."""
    messages, prompt = parse_transcript(fields.get(name)), fields.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        asked = turns_asked(prompt) if is_transcript(prompt) else [message("user", prompt.strip())]
        if messages[: len(asked)] != asked and not (len(asked) == 1 and asked[0] in messages):
            raise RejectedRow(ROLES, f"the prompt is not part of the transcript in '{name}'")
    return system_before(fields, messages)


def _is_sharegpt(fields: Fields) -> bool:
    return is_messages(fields["messages"], TAGS["role"], TAGS["content"])


MESSAGES: Final = Format(
    "messages",
    'a list of {"role", "content"}',
    ("sft",),
    {"messages": ("messages", "conversations", "conversation"), "system": _SYSTEM},
    ("messages",),
    read_messages,
    lambda fields: is_messages(fields["messages"]),
    CONVERSATION_MEANINGS,
)
SHAREGPT: Final = Format(
    "sharegpt",
    'a list of {"from", "value"} (keys and names: tags.role, tags.user, ...); ranked rows: chosen and rejected besides',
    ("sft", "preference"),
    {
        "messages": ("conversations", "conversation"),
        "chosen": ("chosen",),
        "rejected": ("rejected",),
        "system": _SYSTEM,
    },
    ("messages",),
    read_sharegpt,
    _is_sharegpt,
    CONVERSATION_MEANINGS,
    tagged=True,
)
TRANSCRIPTS: Final = Format(
    "hh",
    r"transcripts '\n\nHuman: ...\n\nAssistant: ...' in chosen and rejected; sft takes chosen",
    ("preference", "sft"),
    {"chosen": ("chosen",), "rejected": ("rejected",), "prompt": ("prompt",), "system": _SYSTEM},
    ("chosen",),
    read_transcripts,
    lambda fields: is_transcript(fields["chosen"]) and is_transcript(fields.get("rejected", fields["chosen"])),
    CONVERSATION_MEANINGS,
)
