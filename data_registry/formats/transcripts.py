r"""Transcripts as HH-RLHF has them, ``\n\nHuman: ...\n\nAssistant: ...``, taken apart into messages."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Final

from data_registry.schema import EMPTY, ROLES, UNREADABLE, Message, RejectedRow, Row, message

_TURN: Final = re.compile(r"\r?\n\r?\n(Human|Assistant):")
_ANSWER_TURN: Final = re.compile(r"\r?\n\r?\nAssistant:")
_ROLES: Final = {"Human": "user", "Assistant": "assistant"}
_ANSWER_MARK: Final = re.compile(r"\s*Assistant:")
# How a transcript or a written-out chat template ends where the answer is to follow.
_OPEN_END: Final = re.compile(
    r"(?:(?:^|\n)[ \t]*(?:#+[ \t]*)?assistant[ \t]*:|(?:^|\n)#+[ \t]*response[ \t]*:"
    r"|<\|im_start\|>assistant|<\|assistant\|>|\[/INST\]|<\|start_header_id\|>assistant<\|end_header_id\|>|<start_of_turn>model)\s*$",
    re.IGNORECASE,
)
_OPEN_ENDS: Final = (":", ">", "]", "assistant", "model")
_LONGEST_END: Final = 80


def is_transcript(value: object) -> bool:
    """Whether the value is text that begins with a turn of the Human."""
    if not isinstance(value, str) or not value.lstrip().startswith("Human:"):
        return False
    return value.startswith(("\n\n", "\r\n\r\n")) or _ANSWER_TURN.search(value) is not None


def parse_transcript(transcript: object) -> list[Message]:
    r"""The messages of ``\n\nHuman: ...\n\nAssistant: ...``, stripped of white space.

    Raises:
        RejectedRow: it is no transcript.
    """
    if not isinstance(transcript, str):
        raise RejectedRow(UNREADABLE, f"a transcript is a {type(transcript).__name__}, not text")
    before, *parts = _TURN.split("\n\n" + transcript.lstrip() if is_transcript(transcript) else transcript)
    if before.strip() or not parts:
        raise RejectedRow(UNREADABLE, "a transcript does not begin with a turn of the Human")
    return [message(_ROLES[role], content.strip()) for role, content in zip(parts[::2], parts[1::2], strict=True)]


def turns_asked(prompt: str) -> list[Message]:
    """The messages of a transcript that an answer is to follow, without the empty turn at its end.

    Raises:
        RejectedRow: it is no transcript.
    """
    turns = parse_transcript(prompt)
    return turns[:-1] if turns[-1] == message("assistant", "") else turns


def continued(prompt: str, answer: str) -> list[Message]:
    """The messages of a transcript and of the answer that follows it, which may repeat the transcript.

    Raises:
        RejectedRow: it is no transcript, there is no answer, or the answer is another transcript.
    """
    if is_transcript(answer):
        whole, asked = parse_transcript(answer), turns_asked(prompt)
        if whole[: len(asked)] != asked:
            raise RejectedRow(ROLES, "the prompt is not the beginning of the transcript that answers it")
        return whole
    if not answer.strip():
        raise RejectedRow(EMPTY, "the answer is empty")
    turns, mark = parse_transcript(prompt), _ANSWER_MARK.match(answer)
    if turns[-1]["role"] == "user" or not turns[-1]["content"] or mark is not None:
        turns = turns_asked(prompt)
        return [*turns, *parse_transcript("\n\nAssistant: " + answer[mark.end() if mark else 0 :].strip())]
    # The transcript ends with the beginning of an answer.
    return parse_transcript(prompt + answer)


def split_pair(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected part of two conversations with a common beginning.

    Raises:
        RejectedRow: they have none, or part before their last answers.
    """
    common = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))))
    # Where one answer is all of the other conversation, or both are equal, the last message is still the answer.
    common = min(common, len(chosen) - 1, len(rejected) - 1)
    if common < 1:
        raise RejectedRow(ROLES if chosen and rejected else EMPTY, "the two conversations have no prompt in common")
    if len(chosen) != common + 1 or len(rejected) != common + 1:
        raise RejectedRow(ROLES, "the two conversations part before their last answers")
    return chosen[:common], chosen[common:], rejected[common:]


def check_no_transcript(row: Row) -> None:
    """Refuse a row in normal form of which a message of the user is a whole conversation with its marks.

    Raises:
        RejectedRow: there is such a message.
    """
    for part in row.values():
        for entry in part if isinstance(part, list) else ():
            if entry["role"] != "user":
                continue
            text = entry["content"]
            end = text[-_LONGEST_END:].rstrip()
            if is_transcript(text) or (end.endswith(_OPEN_ENDS) and _OPEN_END.search(end)):
                raise RejectedRow(
                    UNREADABLE,
                    "a message of the user is a whole conversation, its turns written out with marks up to "
                    f"'{text.rstrip()[-20:].strip()}': take its turns apart",
                )
