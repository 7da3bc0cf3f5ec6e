"""The normal form: conversations for SFT, and prompt, chosen and rejected for preferences, checked and hashed.

An SFT row is ``{"messages": [{"role", "content"}, ...]}``; a preference row is ``{"prompt": [...], "chosen": [...],
"rejected": [...]}``. These are TRL's conversational formats. A preference row may have ``reference`` besides: the right
solution as text, or null.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from data_registry.core.unreadable import Unreadable
from data_registry.values import is_missing

if TYPE_CHECKING:
    import pyarrow as pa

Task = Literal["sft", "preference"]
Message = dict[str, str]
Row = dict[str, Any]
"""A row in normal form: its messages by column, and the columns of ``EXTRA`` that it has."""

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {"sft": ("messages",), "preference": ("prompt", "chosen", "rejected")}

REFERENCE: Final = "reference"
"""The right solution of a preference row's question, as text, whatever its two answers are; null where unknown."""
EXTRA: Final[Mapping[str, tuple[str, ...]]] = {"sft": (), "preference": (REFERENCE,)}
"""Columns of text that rows may have beside their messages. They are carried along, and make no row another one."""

UNREADABLE: Final = "unreadable"
EMPTY: Final = "empty"
ROLES: Final = "roles"
UNDECIDED: Final = "undecided"
DUPLICATE: Final = "duplicate"
TEMPLATE: Final = "template"
NO_TRAINED_TOKEN: Final = "no_trained_token"
TOO_LONG: Final = "too_long"
FILTERED: Final = "filtered"
MEANING: Final = "meaning"
UNDESIRED: Final = "undesired"

REASONS: Final[Mapping[str, str]] = {
    UNREADABLE: "not a row of this format: broken JSON, a missing column, or a value of another type",
    EMPTY: "a message without text",
    ROLES: "the turns are not user and assistant in alternation that ends with an answer",
    UNDECIDED: "the preferred and the other answer are the same, or none is preferred",
    DUPLICATE: "the same conversation came before",
    TEMPLATE: "the tokenizer's chat template refuses the conversation",
    NO_TRAINED_TOKEN: "no token of an answer is left within --max-length",
    TOO_LONG: "longer than --max-length or the model's positions",
    FILTERED: "taken out by a filter on a column",
    MEANING: "a column or a key of a message says something that would be lost",
    UNDESIRED: "marked as an answer that must not be learnt",
}
NOT_DROPPED: Final = frozenset({DUPLICATE, FILTERED, TOO_LONG, UNDESIRED})
"""Reasons for which a row is left out but is not unusable: they do not count against ``--max-dropped``."""


class RejectedRow(Exception):  # noqa: N818 - an outcome of reading a row, not a failure of the program
    """A row is not used.

    Args:
        reason: a key of ``REASONS``.
        detail: what was found in the row, for the reader of the rejected rows.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def message(role: str, content: object) -> Message:
    """A message in normal form.

    Raises:
        RejectedRow: the content is not text, or missing: null or NaN.
    """
    if is_missing(content):
        raise RejectedRow(EMPTY, f"the text of the {role} is missing")
    if isinstance(content, Unreadable):
        raise RejectedRow(UNREADABLE, f"the text of the {role} is {content.detail}")
    content = _only_text(role, content)
    if not isinstance(content, str):
        raise RejectedRow(UNREADABLE, f"the text of the {role} is a {type(content).__name__}")
    return {"role": role, "content": content}


def _only_text(role: str, content: object) -> object:
    """The text of a list of content parts that has one text and nothing else; anything else as it is.

    Raises:
        RejectedRow: there are parts of other types, such as images or calls of tools, or several texts.
    """
    if not (isinstance(content, list) and content and all(isinstance(part, Mapping) for part in content)):
        return content
    kinds = [str(part.get("type")) for part in content]
    others = sorted({kind for kind in kinds if kind != "text"})
    if others:
        raise RejectedRow(MEANING, f"the content of the {role} has parts of type {', '.join(others)[:80]}")
    if len(content) > 1:
        raise RejectedRow(
            MEANING, f"the content of the {role} has {len(content)} texts, and none says how to join them"
        )
    (part,) = content
    held = [key for key, value in part.items() if key not in ("type", "text") and not is_missing(value)]
    if held:
        raise RejectedRow(MEANING, f"the content of the {role} has {', '.join(map(str, held))[:80]} beside its text")
    return part.get("text")


def sft_row(messages: Sequence[Message]) -> Row:
    """A conversation as an SFT row.

    Raises:
        RejectedRow: a message is empty, or the turns do not alternate and end with an answer.
    """
    return {"messages": check_conversation(messages)}


def preference_row(prompt: Sequence[Message], chosen: Sequence[Message], rejected: Sequence[Message]) -> Row:
    """A prompt with two answers as a preference row, without a reference.

    Raises:
        RejectedRow: as for :func:`sft_row`, of either conversation, or both answers are the same.
    """
    for name, completion in (("chosen", chosen), ("rejected", rejected)):
        if not completion:
            raise RejectedRow(EMPTY, f"there is no {name} answer")
        check_conversation([*prompt, *completion])
        if completion[0]["role"] != "assistant":
            raise RejectedRow(ROLES, f"the {name} part begins with a message of the {completion[0]['role']}")
    if list(chosen) == list(rejected):
        raise RejectedRow(UNDECIDED, "the chosen and the rejected answer are the same")
    return {"prompt": list(prompt), "chosen": list(chosen), "rejected": list(rejected)}


def check_conversation(messages: Sequence[Message]) -> list[Message]:
    """The messages, which may begin with the system and then alternate between user and assistant, who is last.

    Raises:
        RejectedRow: they do not, or one is empty.
    """
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not turns:
        raise RejectedRow(EMPTY, "there are no messages")
    for entry in messages:
        if not entry["content"].strip():
            raise RejectedRow(EMPTY, f"a message of the {entry['role']} is empty")
    for index, entry in enumerate(turns):
        expected = ("user", "assistant")[index % 2]
        if entry["role"] != expected:
            raise RejectedRow(
                ROLES, f"turn {index + 1} is of the {entry['role']}, where one of the {expected} is expected"
            )
    if turns[-1]["role"] != "assistant":
        raise RejectedRow(ROLES, "the conversation does not end with an answer")
    return list(messages)


def with_system(row: Row, system: str) -> Row:
    """The row with this system message before it, in place of its own if it has one."""
    first = "messages" if "messages" in row else "prompt"
    rest = row[first][1:] if row[first] and row[first][0]["role"] == "system" else row[first]
    return {**row, first: [{"role": "system", "content": system}, *rest]}


def content_hash(row: Row) -> bytes:
    """16 bytes that are equal for equal rows.

    BLAKE2b over the columns in the order of ``COLUMNS``, each message as its role and its text in UTF-8, every part
    preceded by its length in bytes.

    Raises:
        RejectedRow: a text has no UTF-8 form (half of a surrogate pair).
    """
    columns = COLUMNS["sft" if "messages" in row else "preference"]
    digest = hashlib.blake2b(digest_size=16)
    for column in columns:
        _feed(digest, [column.encode(), str(len(row[column])).encode(), *_parts(row[column])])
    return digest.digest()


PREPARATION_SPLIT: Final = b"ogpsa split"
EVALUATION_SPLIT: Final = b"ogpsa eval"


def split_share(row: Row, person: bytes = PREPARATION_SPLIT) -> float:
    """A number in [0, 1) that depends on the row's question alone: the user's turns before the first answer.

    Rows below ``--heldout-fraction`` are held out. A row's side so depends neither on other rows nor on their order,
    and rows that answer the same question are on the same side: the held-out part asks nothing that was trained on.
    The first 8 bytes of the BLAKE2b hash of those turns, as a fraction; ``person`` makes splits for other purposes
    independent of each other.
    """
    messages = row["messages"] if "messages" in row else row["prompt"]
    question = []
    for entry in messages:
        if entry["role"] == "assistant":
            break
        if entry["role"] == "user":
            question.append(entry)
    digest = hashlib.blake2b(digest_size=8, person=person)
    _feed(digest, _parts(question))
    return int.from_bytes(digest.digest(), "big") / 2**64


def _parts(messages: Sequence[Message]) -> Iterator[bytes]:
    for entry in messages:
        yield entry["role"].encode()
        try:
            yield entry["content"].encode()
        except UnicodeEncodeError as error:
            raise RejectedRow(UNREADABLE, "a text holds half of a surrogate pair, which is no character") from error


def _feed(digest: Any, parts: Sequence[bytes] | Iterator[bytes]) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)


def arrow_schema(task: Task, extra: Sequence[str] = ()) -> pa.Schema:
    """The Arrow schema of prepared rows.

    Args:
        task: what they are for.
        extra: those columns of ``EXTRA`` that they have.
    """
    import pyarrow as pa

    messages = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    return pa.schema({**dict.fromkeys(COLUMNS[task], messages), **dict.fromkeys(extra, pa.string())})
