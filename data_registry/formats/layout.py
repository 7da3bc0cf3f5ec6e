"""What a format is, and how the columns of a row become its fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from data_registry.schema import UNREADABLE, Message, RejectedRow, Row, Task, message

Fields = Mapping[str, Any]
Tags = Mapping[str, str]
Columns = Mapping[str, tuple[str, ...]]

TAGS: Final[Mapping[str, str]] = {
    "role": "from",
    "content": "value",
    "user": "human",
    "assistant": "gpt",
    "system": "system",
}
"""Keys and role names of sharegpt conversations, by what they are."""

MESSAGE_TAGS: Final[Mapping[str, str]] = {
    "role": "role",
    "content": "content",
    "user": "user",
    "assistant": "assistant",
    "system": "system",
}
"""The same for messages as chat templates take them."""

# Names that data sets give to the three roles.
_ROLES: Final = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "model"), "assistant"),
    "system": "system",
}


@dataclass(frozen=True)
class Format:
    """A way in which data sets lay out their rows.

    Attributes:
        name: what ``--format`` takes.
        description: one sentence for listings.
        tasks: what its rows can be made into.
        columns: the column names that each field may have, tried in order.
        required: fields that a row must have; of a group written ``a|b``, at least one.
        read: makes a row in normal form from the fields; raises ``RejectedRow``.
        recognises: whether fields look like this format, for ``auto``.
    """

    name: str
    description: str
    tasks: tuple[Task, ...]
    columns: Columns
    required: tuple[str, ...]
    read: Callable[[Fields, Task, Tags], Row]
    recognises: Callable[[Fields], bool]


@dataclass(frozen=True)
class Layout:
    """A format with what a particular data set says of its columns and tags.

    Attributes:
        format: name of the format.
        columns: the column names of each field, tried in order.
        tags: keys and role names of a sharegpt layout.
    """

    format: str
    columns: Columns
    tags: Tags = field(default_factory=lambda: dict(TAGS))


def fields_of(row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The fields that a row has, by the first of their columns with a value; null is no value."""
    fields = {}
    for name, candidates in columns.items():
        for column in candidates:
            if row.get(column) is not None:
                fields[name] = row[column]
                break
    return fields


def missing_fields(fields: Fields, required: tuple[str, ...]) -> list[str]:
    """Those of ``required`` that are not there."""
    return [group for group in required if not any(name in fields for name in group.split("|"))]


def text(value: object, name: str) -> str:
    """A text field; a number is written out, a missing value is empty.

    Raises:
        RejectedRow: it is a list or the like.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise RejectedRow(UNREADABLE, f"'{name}' is a {type(value).__name__}, not text")


def is_text(value: object) -> bool:
    """Whether the value is a string with something in it."""
    return isinstance(value, str) and bool(value.strip())


def is_messages(value: object, role: str = "role", content: str = "content") -> bool:
    """Whether the value is a list of messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, dict) and role in entry and content in entry for entry in value)
    )


def as_message(value: object, tags: Tags) -> Message:
    """A message from a mapping with the tags' keys.

    Raises:
        RejectedRow: it is no mapping, a key is missing, or its role is none of system, user and assistant.
    """
    if not isinstance(value, dict):
        raise RejectedRow(UNREADABLE, f"a message is a {type(value).__name__}, not an object")
    for key in (tags["role"], tags["content"]):
        if key not in value:
            raise RejectedRow(UNREADABLE, f"a message has no '{key}' but {', '.join(map(str, value)) or 'nothing'}")
    return message(_role(value[tags["role"]], tags), value[tags["content"]])


def _role(name: object, tags: Tags) -> str:
    for role in ("user", "assistant", "system"):
        if name == tags[role]:
            return role
    if isinstance(name, str) and name in _ROLES:
        return _ROLES[name]
    raise RejectedRow(UNREADABLE, f"a message is of '{name}', which is none of system, user and assistant")


def as_messages(value: object, tags: Tags) -> list[Message]:
    """Messages from a list of mappings, or from its JSON text (as CSV files have it).

    Raises:
        RejectedRow: it is neither, or a message is not readable.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RejectedRow(UNREADABLE, f"a conversation is not JSON: {error}") from error
    if not isinstance(value, list):
        raise RejectedRow(UNREADABLE, f"a conversation is a {type(value).__name__}, not a list of messages")
    return [as_message(entry, tags) for entry in value]


def opening(fields: Fields) -> list[Message]:
    """The messages before the prompt: the row's system message and its earlier exchanges, where it has any.

    Raises:
        RejectedRow: the history is not a list of pairs of question and answer.
    """
    messages = []
    system = text(fields.get("system"), "system")
    if system.strip():
        messages.append(message("system", system))
    for pair in fields.get("history") or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RejectedRow(UNREADABLE, "the history is not a list of [question, answer] pairs")
        messages += [message("user", pair[0]), message("assistant", pair[1])]
    return messages
