"""Conversations that a model is to answer, from whatever has prompts: files, data sets, the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_registry.core.errors import InputError
from data_registry.formats.prompt_sets import PromptLayout
from data_registry.prompts.reading import read_prompt_set
from data_registry.prompts.specs import PromptSetSpec
from data_registry.schema import Message
from data_registry.sources.opening import Location, open_source
from pipelines.sampling.prompts import read_prompts

_CHAT_COLUMNS = ("messages", "conversation", "prompt")
_ROLES = ("system", "user", "assistant")


def read_conversations(path: Path) -> list[list[Message]]:
    """The conversations up to the answer, in the order of the source.

    Args:
        path: a text file with a prompt a line; a file of rows that have a prompt as text, or messages of which the
            last answer is left out; a prepared data set; or the name of a prompt set of the registry.

    Raises:
        InputError: there is no such file, it has no prompts, or they cannot be read.
        ArtifactError: a data set does not verify.
    """
    if not path.is_file():
        return read_prompts(path, None, 0).messages
    if path.suffix.lower() != ".txt":
        rows = _rows(path)
        column = _chat_column(rows)
        if column is not None:
            return [_before_answer(row.get(column), f"{path}, row {number}") for number, row in enumerate(rows, 1)]
    # Nothing is made of whether a prompt is harmful.
    found = read_prompt_set(PromptSetSpec(data=str(path.absolute()), layout=PromptLayout(harmful=False)))
    return [[{"role": "user", "content": prompt.text}] for prompt in found.prompts]


def _rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a file; what cannot be read as one is left to the reader of prompt sets, which says where it is."""
    source = open_source(Location("local", str(path)))
    return [row for chunk in source.chunks() for _, row in chunk.entries() if isinstance(row, Mapping)]


def _chat_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The column that has lists of messages; None where prompts are texts."""
    return next((name for name in _CHAT_COLUMNS if rows and isinstance(rows[0].get(name), list)), None)


def _before_answer(messages: Any, where: str) -> list[Message]:
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        raise InputError(
            "a row has no list of messages with role and content", where=where, fix=f"roles are {', '.join(_ROLES)}"
        )
    found: list[Message] = [{"role": str(each["role"]), "content": str(each["content"])} for each in messages]
    if found and found[-1]["role"] == "assistant":
        found = found[:-1]
    if not found or found[-1]["role"] != "user":
        raise InputError("the messages of a row do not end with what a user says", where=where)
    return found


def _is_message(message: Any) -> bool:
    is_text = isinstance(message, Mapping) and isinstance(message.get("content"), str)
    return is_text and message.get("role") in _ROLES
