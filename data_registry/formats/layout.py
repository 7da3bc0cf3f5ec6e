"""What a format is, and how the columns of a row become its fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from data_registry.core.unreadable import Unreadable
from data_registry.formats.judgements import JUDGEMENTS
from data_registry.formats.meanings import MEANINGS, MESSAGE_MEANINGS, Kind, Meaning, normal
from data_registry.schema import EXTRA, UNREADABLE, Message, RejectedRow, Row, Task, message
from data_registry.values import decoded, is_missing, says_something

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

ASKED: Final[Columns] = {
    "query": ("input",),
    "context": ("context", "ContextString", "passage", "article"),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
}
"""Fields that every format with a question as text has beside it, and the columns that hold them."""

# Names that data sets give to the three roles.
_ROLES: Final = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatbot", "chatgpt", "ai", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
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
        meanings: what columns say that are none of its fields, where that changes the meaning of a row; by normal name.
        ignores: normal names of columns that it leaves out knowingly, beside those that every format does.
        tagged: whether its messages have the keys and role names of the layout's tags.
        judgements: what columns say of an answer that is learnt as it stands; by normal name.
        last: whether ``auto`` considers it only where no other format fits, because its columns have common names.
    """

    name: str
    description: str
    tasks: tuple[Task, ...]
    columns: Columns
    required: tuple[str, ...]
    read: Callable[[Fields, Task, Tags], Row]
    recognises: Callable[[Fields], bool]
    meanings: Mapping[str, Meaning] = field(default_factory=lambda: MEANINGS)
    ignores: frozenset[str] = frozenset()
    tagged: bool = False
    judgements: Mapping[str, Meaning] = field(default_factory=lambda: JUDGEMENTS)
    last: bool = False


@dataclass(frozen=True)
class Layout:
    """A format with what a particular data set says of its columns and tags.

    Attributes:
        format: name of the format.
        columns: the column names of each field, tried in order.
        tags: keys and role names of a sharegpt layout.
        only: whether the columns named are said to be all that belong to a row.
    """

    format: str
    columns: Columns
    tags: Tags = field(default_factory=lambda: dict(TAGS))
    only: bool = False


def columns_of(row: Mapping[str, Any], columns: Columns) -> dict[str, str]:
    """The column that holds each field of a row: the first of its candidates that says something.

    If none does, the first with a value at all, such as empty text; null and NaN are no values.
    """
    found = {}
    for name, candidates in columns.items():
        for column in candidates:
            value = row.get(column)
            if value is None:
                continue
            if says_something(value):
                found[name] = column
                break
            if not is_missing(value):
                found.setdefault(name, column)
    return found


def extra_of(layout: Layout, task: Task) -> tuple[str, ...]:
    """The columns of text that rows of this layout have beside their messages."""
    return tuple(name for name in EXTRA[task] if layout.columns.get(name))


def as_spelled(columns: Columns, names: Iterable[str]) -> Columns:
    """The candidates of each field, with those columns before them that differ from one in spelling alone.

    ``Prompt``, `` prompt`` and ``PROMPT`` are taken for ``prompt``, where there is no column of just that name.

    Args:
        columns: the column names that each field may have.
        names: the columns that are there.
    """
    present = list(dict.fromkeys(names))
    alike: dict[str, list[str]] = {}
    for name in present:
        alike.setdefault(_letters(name), []).append(name)

    def spelled(candidate: str) -> list[str]:
        others = [] if candidate in present else alike.get(_letters(candidate), [])
        return [*others, candidate]

    return {
        field: tuple(dict.fromkeys(name for candidate in candidates for name in spelled(candidate)))
        for field, candidates in columns.items()
    }


def _letters(name: str) -> str:
    return normal(name).replace("_", "")


def fields_of(row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The fields that a row has, as :func:`columns_of` finds them."""
    return {name: row[column] for name, column in columns_of(row, columns).items()}


def missing_fields(fields: Fields, required: tuple[str, ...]) -> list[str]:
    """Those of ``required`` that are not there."""
    return [group for group in required if not any(name in fields for name in group.split("|"))]


def text(value: object, name: str) -> str:
    """A text field; a number is written out, a missing value or an empty list is empty.

    Raises:
        RejectedRow: it is a list or the like, or an infinite number.
    """
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf"):
        return str(value)
    if isinstance(value, list | dict) and not says_something(value):
        return ""
    raise RejectedRow(UNREADABLE, f"'{name}' is a {type(value).__name__}, not text")


def is_text(value: object) -> TypeGuard[str]:
    """Whether the value is a string with something in it."""
    return isinstance(value, str) and bool(value.strip()) and not is_missing(value)


def is_messages(value: object, role: str = "role", content: str = "content") -> bool:
    """Whether the value is a list of messages, or the JSON text of one (as CSV files have it)."""
    try:
        value = decoded(value)
    except ValueError:
        return False
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, dict) and role in entry and (content in entry or _calls(entry)) for entry in value)
    )


def _calls(entry: Mapping[str, Any]) -> bool:
    """Whether a message without a text has something in its place, such as a call of a tool."""
    meanings = (MESSAGE_MEANINGS.get(normal(str(key))) for key, value in entry.items() if says_something(value))
    return any(meaning is not None and meaning.kind is Kind.REFUSED for meaning in meanings)


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
    return message(role_of(value[tags["role"]], tags), value[tags["content"]])


def role_of(name: object, tags: Tags) -> str:
    """The role that a name stands for.

    Raises:
        RejectedRow: it is none of system, user and assistant.
    """
    for role in ("user", "assistant", "system"):
        if name == tags[role]:
            return role
    if isinstance(name, str) and name.strip().lower() in _ROLES:
        return _ROLES[name.strip().lower()]
    raise RejectedRow(UNREADABLE, f"a message is of '{name}', which is none of system, user and assistant")


def as_messages(value: object, tags: Tags) -> list[Message]:
    """Messages from a list of mappings, or from its JSON text (as CSV files have it).

    Raises:
        RejectedRow: it is neither, or a message is not readable.
    """
    try:
        value = decoded(value)
    except ValueError as error:
        raise RejectedRow(UNREADABLE, f"a conversation is {error}") from error
    if isinstance(value, Unreadable):
        raise RejectedRow(UNREADABLE, f"a conversation is {value.detail}")
    if not isinstance(value, list):
        raise RejectedRow(UNREADABLE, f"a conversation is a {type(value).__name__}, not a list of messages")
    return [as_message(entry, tags) for entry in value]


def opening(fields: Fields) -> list[Message]:
    """The messages before the prompt: the row's system message and its earlier exchanges, where it has any.

    Raises:
        RejectedRow: the history is neither a list of pairs of question and answer nor one of messages.
    """
    messages = []
    system = text(fields.get("system"), "system")
    if system.strip():
        messages.append(message("system", system))
    return [*messages, *earlier_turns(fields.get("history"))]


def earlier_turns(value: object) -> list[Message]:
    """The messages of a history: pairs of question and answer, or messages as chat templates or sharegpt have them.

    Raises:
        RejectedRow: it is none of these.
    """
    if not says_something(value):
        return []
    try:
        value = decoded(value)
    except ValueError as error:
        raise RejectedRow(UNREADABLE, f"the history is {error}") from error
    for tags in (MESSAGE_TAGS, TAGS):
        if is_messages(value, tags["role"], tags["content"]):
            return as_messages(value, tags)
    messages = []
    for pair in value if isinstance(value, list | tuple) else [None]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RejectedRow(UNREADABLE, "the history is not a list of [question, answer] pairs or of messages")
        messages += [message("user", pair[0]), message("assistant", pair[1])]
    return messages


def system_before(fields: Fields, messages: list[Message]) -> list[Message]:
    """Messages with the row's system message before them, unless they begin with the same one.

    Raises:
        RejectedRow: as for :func:`opening`.
    """
    before = opening(fields)
    return messages if before and messages[:1] == before else [*before, *messages]
