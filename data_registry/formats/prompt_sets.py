"""How the rows of a prompt set are laid out: which column is the request, and which rows are harmful."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ConfigDict, Field, field_validator, model_validator

from data_registry.core.documents import Document

HARMFUL: Final = "harmful"
HARMLESS: Final = "harmless"
GROUPS: Final = (HARMFUL, HARMLESS)

CONTEXT_SEPARATOR: Final = "\n\n---\n\n"
"""Between a context and the request about it, as HarmBench writes its contextual behaviours."""


class LabelColumn(Document):
    """A column that says which rows are harmful.

    Attributes:
        column: the name of the column.
        harmful: values of harmful rows.
        harmless: values of harmless rows; any other value is an error.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)
    column: str
    harmful: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()

    @field_validator("harmful", "harmless", mode="before")
    @classmethod
    def _truth(cls, values: Any) -> Any:
        return [_as_text(value) for value in values] if isinstance(values, list) else values

    @model_validator(mode="after")
    def _check(self) -> LabelColumn:
        if not self.harmful and not self.harmless:
            raise ValueError("name the values of harmful or of harmless rows")
        both = set(self.harmful) & set(self.harmless)
        if both:
            raise ValueError(f"'{sorted(both)[0]}' is given as harmful and as harmless")
        return self

    def group(self, value: object) -> str | None:
        """The group of a row with this value; None where the value is unknown."""
        for text in _spellings(value):
            if text in (*self.harmful, *self.harmless):
                return HARMFUL if text in self.harmful else HARMLESS
        return None


class PromptLayout(Document):
    """How the rows of a prompt set are laid out.

    Attributes:
        prompt: column with the request; by default one of the usual names.
        category: column with a kind of request, for looking at results by it.
        context: column with a text that belongs before the request.
        id: column with names of the rows; by default they are numbered.
        harmful: whether all rows are harmful; left out where ``label`` says it.
        label: the column that says it.
        where: take only rows that have one of these values in these columns.
        ignore: columns that may be lost.
        in_list: whether the request is the only entry of a list, or of its text, as SORRY-Bench has its turns.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)
    prompt: str | None = None
    category: str | None = None
    context: str | None = None
    id: str | None = None
    harmful: bool | None = None
    label: LabelColumn | None = None
    where: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    in_list: bool = False

    @field_validator("where", mode="before")
    @classmethod
    def _truth(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {
            column: [_as_text(value) for value in wanted] if isinstance(wanted, list) else _as_text(wanted)
            for column, wanted in values.items()
        }

    @model_validator(mode="after")
    def _check(self) -> PromptLayout:
        if (self.harmful is None) == (self.label is None):
            raise ValueError("say which rows are harmful: either 'harmful: true' (or false), or 'label'")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that are named."""
        label = self.label.column if self.label else None
        named = [self.prompt, self.category, self.context, self.id, label, *self.where]
        return [name for name in named if name is not None]

    def request(self, value: object) -> object:
        """The request that a row's value holds: the value itself, or the only entry of the list that it is.

        Where it is no list of one entry, the value comes back as a list, which is no request.
        """
        if not self.in_list:
            return value
        entries = _as_list(value)
        return entries[0] if len(entries) == 1 else entries

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has the values that it must have."""
        return all(
            any(text in ((wanted,) if isinstance(wanted, str) else wanted) for text in _spellings(row.get(column)))
            for column, wanted in self.where.items()
        )


def _as_text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _as_list(value: object) -> list[Any]:
    """A list, also from its text as CSV files have it: as JSON or Python writes it."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return []
    return value if isinstance(value, list) else []


def _spellings(value: object) -> tuple[str, ...]:
    """A value as text, in the ways in which people write it: a row's True and 1.0 are true and 1 in a suite file."""
    if isinstance(value, bool):
        return (str(value).lower(), str(value))
    if isinstance(value, float) and value.is_integer():
        return (str(int(value)), str(value))
    return (str(value),)
