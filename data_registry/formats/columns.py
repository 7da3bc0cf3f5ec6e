"""Looks at every column of a row and every key of its messages: used, known to be no loss, refused, or to be named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from data_registry.formats.judgements import judged_good, judgement_of
from data_registry.formats.layout import MESSAGE_TAGS, Format, Layout, Tags, role_of
from data_registry.formats.meanings import MESSAGE_MEANINGS, Kind, Meaning, is_ignored, normal
from data_registry.formats.registry import find_format
from data_registry.schema import MEANING, UNDESIRED, RejectedRow, Task
from data_registry.values import as_mark, as_number, decoded, says_something

# Rows of one data set have few different sets of columns; hostile ones must not fill the memory.
_MAX_KNOWN: Final = 1000
_SHOWN: Final = 40
# Kinds whose values, where they speak against an answer, say that it must not be learnt.
_FINAL: Final = frozenset({Kind.DESIRED, Kind.UNDESIRED, Kind.LEARNT, Kind.VERDICT, Kind.APPROVED, Kind.CONDEMNED})
# Kinds of which a value that is no mark is one of those that no one knows.
_MAY_BE_ANYTHING: Final = frozenset({Kind.JUDGED, Kind.SUSPECT})
OF_MESSAGES: Final = "messages."
"""What the names of keys of messages begin with, to tell them from columns."""


def without(layout: Layout, ignored: Collection[str]) -> Layout:
    """The layout without the columns that a person said to ignore."""
    columns = {name: tuple(c for c in candidates if c not in ignored) for name, candidates in layout.columns.items()}
    return replace(layout, columns=columns)


class ColumnCheck:
    """Checks the columns of rows of one layout; remembers what it found out about names.

    Args:
        layout: how the rows are laid out.
        task: what they are made into.
        chosen_by: columns that rows are chosen by, whose values a person so has named.
        ignored: names of columns, and of keys of messages with or without ``messages.``, that may be lost.
    """

    def __init__(
        self, layout: Layout, task: Task, *, chosen_by: Collection[str] = (), ignored: Collection[str] = ()
    ) -> None:
        self.seen: set[str] = set()
        self._format: Format = find_format(layout.format)
        self._layout = layout
        self._tags: Tags = layout.tags if self._format.tagged else MESSAGE_TAGS
        self._task = task
        self._chosen_by, self._ignored = frozenset(chosen_by), frozenset(ignored)
        self._columns: dict[tuple[str, ...], list[tuple[str, Meaning | None]]] = {}
        self._keys: dict[tuple[str, ...], list[tuple[str, Meaning | None]]] = {}

    def __call__(self, row: Mapping[str, Any], used: Mapping[str, str]) -> list[str]:
        """The columns, and the keys of messages, with a value that no one uses.

        Args:
            row: the row as its source has it.
            used: the column of each field, as ``columns_of`` finds them.

        Raises:
            RejectedRow: the row must not be learnt, or a column or key says something that would be lost.
        """
        taken = set(used.values())
        unused = []
        for column, meaning in self._open_columns(row):
            value = row[column]
            if column in taken or not says_something(value) or _is_repeated(value, row, taken):
                continue
            if column not in self._chosen_by if meaning is None else self._is_to_be_named(column, meaning, value):
                unused.append(column)
        for field, column in used.items():
            if not (field == "rejected" and self._task == "sft"):
                value = row[column] if field not in ("messages", "history") else _decoded(row[column])
                unused += self._check_messages(value, is_prompt=field in ("prompt", "history"))
        return list(dict.fromkeys(unused))

    def _open_columns(self, row: Mapping[str, Any]) -> list[tuple[str, Meaning | None]]:
        """The columns that have to be looked at, with what is known of their names."""
        names = tuple(row)
        if names not in self._columns:
            if len(self._columns) >= _MAX_KNOWN:
                self._columns.clear()
            self._columns[names] = [
                (name, meaning)
                for name, meaning in self._meanings(names, self._format.meanings, "")
                if meaning is not None or normal(name) not in self._format.ignores
            ]
        return self._columns[names]

    def _meanings(
        self, names: tuple[str, ...], known: Mapping[str, Meaning], prefix: str
    ) -> Iterator[tuple[str, Meaning | None]]:
        """Those names that are not ignored, with their meaning, if it is known."""
        for name in names:
            if name in self._ignored or prefix + name in self._ignored:
                self.seen.update({name, prefix + name} & self._ignored)
                continue
            plain = normal(name)
            meaning = known.get(plain)
            if not prefix and plain in self._format.ignores:
                meaning = None
            elif meaning is None and plain.endswith("margin") and len(plain) <= _SHOWN:
                meaning = known.get("margin")
            elif meaning is None and not prefix and self._task == "sft":
                # Of a pair, an answer that is judged badly may well be the rejected one.
                meaning = self._format.judgements.get(plain) or judgement_of(plain)
            if meaning is not None or not is_ignored(plain):
                yield name, meaning

    def _is_to_be_named(self, column: str, meaning: Meaning, value: object) -> bool:
        """Whether a column is to be named as not used; if not, its value says nothing.

        Raises:
            RejectedRow: the value says something that would be lost, or that the row must not be learnt.
        """
        kind, good = meaning.kind, judged_good(meaning.kind, value)
        if good is False and kind in _FINAL:
            raise RejectedRow(UNDESIRED, f"'{column}' is {_shown(value)}")
        if good or column in self._chosen_by:
            return False
        if (good is None and kind in _MAY_BE_ANYTHING) or (kind is Kind.FIELD and self._layout.only):
            return True
        remedy = f"--set where.{column}=VALUE takes rows of one value" if meaning.by_value else ""
        if kind is Kind.FIELD and meaning.field in self._format.columns:
            remedy = f"--set columns.{meaning.field}={column} takes it in"
        raise _lost(column, meaning, value, remedy)

    def _check_messages(self, value: object, *, is_prompt: bool) -> list[str]:
        """The keys of messages that no one uses.

        Args:
            value: a field's value, which may be messages.
            is_prompt: whether other messages follow; for preference nothing of a prompt is learnt.

        Raises:
            RejectedRow: the value is messages, and a key says something that would be lost.
        """
        entries = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
        # Almost every message has its role and its text alone.
        marked = [entry for entry in entries if isinstance(entry, dict) and self._open_keys(entry)]
        if not marked:
            return []
        unused: list[str] = []
        weights: list[float | None] = []
        lost = None
        for entry in marked:
            is_answer = self._is_answer(entry)
            for key, meaning in self._open_keys(entry):
                found, name = entry[key], OF_MESSAGES + key
                if not says_something(found):
                    continue
                if meaning is not None and meaning.kind is Kind.SUSPECT:
                    if judged_good(meaning.kind, found) is False:
                        raise _lost(name, meaning, found)
                    continue
                if meaning is not None and meaning.kind is not Kind.LEARNT:
                    raise _lost(name, meaning, found)
                if meaning is None or (not is_answer and as_mark(found) is not False):
                    # A question that is to be learnt is not: only answers are.
                    unused.append(name)
                elif is_answer and as_number(found) != 1 and not (is_prompt and self._task == "preference"):
                    weights.append(as_number(found))
                    lost = lost or _lost(name, meaning, found)
        if lost is not None:
            num_answers = len(weights) if not is_prompt else 0
            if all(weight == 0 for weight in weights) and sum(map(self._is_answer, entries)) == num_answers:
                raise RejectedRow(UNDESIRED, "every answer is marked as not to be learnt")
            raise lost
        return unused

    def _is_answer(self, entry: object) -> bool:
        try:
            return isinstance(entry, dict) and role_of(entry.get(self._tags["role"]), self._tags) == "assistant"
        except RejectedRow:
            return False

    def _open_keys(self, entry: Mapping[str, Any]) -> list[tuple[str, Meaning | None]]:
        names = tuple(entry)
        if names not in self._keys:
            if len(self._keys) >= _MAX_KNOWN:
                self._keys.clear()
            own = {self._tags["role"], self._tags["content"]}
            # Without a role it is no message, but a choice, say.
            others = tuple(name for name in names if name not in own) if self._tags["role"] in names else ()
            self._keys[names] = list(self._meanings(others, MESSAGE_MEANINGS, OF_MESSAGES))
        return self._keys[names]


def _is_repeated(value: object, row: Mapping[str, Any], columns: Collection[str]) -> bool:
    """Whether one of these columns has the same text or messages, or a message with that text."""
    if not isinstance(value, str | list | dict):
        return False
    for column in columns:
        other = row[column]
        if other == value:
            return True
        if isinstance(value, str) and isinstance(other, list):
            texts = (part for entry in other if isinstance(entry, dict) for part in entry.values())
            if any(isinstance(text, str) and text.strip() == value.strip() for text in texts):
                return True
    return False


def _decoded(value: object) -> object:
    try:
        return decoded(value)
    except ValueError:
        return None


def _lost(name: str, meaning: Meaning, value: object, remedy: str = "") -> RejectedRow:
    advice = [*filter(None, (remedy, meaning.remedy)), f"--ignore-columns {name} takes rows without it"]
    return RejectedRow(
        MEANING, f"'{name}' {meaning.says} (here {_shown(value)}), which would be lost; {', or '.join(advice)}"
    )


def _shown(value: object) -> str:
    if isinstance(value, int | float) and abs(value) < 1e15:
        return str(value)
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    text = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
    return f"'{text.encode('utf-8', 'backslashreplace').decode()}'"
