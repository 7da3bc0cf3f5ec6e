"""What rows look like that no format fits, and what a person can do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from data_registry.formats.conversations import TRANSCRIPTS
from data_registry.formats.transcripts import is_transcript
from data_registry.values import says_something

Guess = tuple[str, str]

_SHOWN: Final = 4
_COLUMNWISE: Final = (
    "it is one object that holds columns, not rows",
    "write its rows one a line, as pandas does with  to_json(FILE, orient='records', lines=True)",
)
_ASKING: Final = ("prompt", "instruction", "question", "query", "goal", "behavior")


def guess(rows: Sequence[Mapping[str, Any]]) -> Guess | None:
    """What the rows are, and what to do, where their form makes it plain; None where it does not.

    Args:
        rows: the first rows of a source; a file that is one object is one row.
    """
    if len(rows) == 1 and rows[0]:
        found = _of_one_object(rows[0])
        if found is not None:
            return found
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        held = [row[name] for row in rows if says_something(row.get(name))]
        if any(is_transcript(value) for value in held):
            return f"'{name}' holds transcripts", f"--format {TRANSCRIPTS.name} --set columns.chosen={name} reads them"
        if held and all(_has_parts(value) for value in held):
            return (
                f"'{name}' holds messages whose texts are in parts, as Gemini has them",
                'write each as a line  {"messages": [{"role": "user", "content": ...}, ...]}',
            )
        if held and all(_are_texts(value) for value in held) and len(names) == 1:
            return (
                f"'{name}' holds the texts of turns, and no one says whose they are",
                'write each as a line  {"messages": [{"role": "user", "content": ...}, ...]}',
            )
    texts = [name for name in names if any(isinstance(row.get(name), str) for row in rows)]
    if len(texts) == 1 and texts[0].strip().lower() in _ASKING:
        return (
            f"'{texts[0]}' holds questions, and no column their answers",
            "prompts without answers are for evaluation; see:  ogpsa evaluate --help",
        )
    return None


def _of_one_object(row: Mapping[str, Any]) -> Guess | None:
    """What a file is that consists of one object."""
    wrapped = [name for name, value in row.items() if _are_rows(value)]
    if wrapped and not {"from", "role"} & set(row[wrapped[0]][0]):
        named = ", ".join(f"'{name}'" for name in wrapped[:_SHOWN])
        return (
            f"it is one object that holds rows in {named}",
            f"take them out, one row a line:  jq -c '.[{_quoted(wrapped[0])}][]' FILE > rows.jsonl",
        )
    values = list(row.values())
    if len(values) < 2:
        return None
    if _are_rows(values):
        if all(str(key).isdecimal() for value in values for key in value):  # as pandas writes a table
            return _COLUMNWISE
        if len({tuple(value) for value in values}) == 1:
            return (
                "it is one object that holds a row under each of its keys",
                "take them out, one row a line:  jq -c '.[]' FILE > rows.jsonl",
            )
    if all(isinstance(value, list) and value for value in values) and len({len(value) for value in values}) == 1:
        return _COLUMNWISE
    return None


def _are_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) and entry for entry in value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(entry, str) for entry in value)


def _has_parts(value: object) -> bool:
    return _are_rows(value) and isinstance(value, list) and all("parts" in entry for entry in value)


def _quoted(name: str) -> str:
    """A name as jq writes it within an argument of the shell in single quotes."""
    plain = name.replace("\\", "\\\\").replace('"', '\\"').replace("'", "'\\''")
    return f'"{plain}"'
