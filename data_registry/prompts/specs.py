"""What a prompt set is, and how registry and files describe one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field, field_validator, model_validator

from data_registry.core.documents import Document
from data_registry.core.manifest import InputRecord
from data_registry.core.shown import shown
from data_registry.formats.prompt_sets import PromptLayout

_LONGEST_NAME: Final = 80
_NAME: Final = re.compile(rf"[A-Za-z0-9][\w.-]{{0,{_LONGEST_NAME - 1}}}")


@dataclass(frozen=True)
class Prompt:
    """One request.

    Attributes:
        id: unique in its set.
        group: ``harmful`` or ``harmless``.
        text: the request, with its context before it where it has one.
        category: the set's own; empty where it has none.
        context: the part of the text that stands before the request; empty where it has none.
    """

    id: str
    group: str
    text: str
    category: str = ""
    context: str = ""


@dataclass(frozen=True)
class PromptSet:
    """A set as it was read.

    Attributes:
        name: the name under which results list the set.
        prompts: the prompts, in the order of the source.
        inputs: records of what was read.
        split: the split of the source that the prompts come from, where it has splits.
    """

    name: str
    prompts: list[Prompt]
    inputs: list[InputRecord]
    split: str = "all"

    @property
    def groups(self) -> set[str]:
        """The groups that occur."""
        return {prompt.group for prompt in self.prompts}


class PromptSetSpec(Document):
    """A prompt set as a suite names it.

    Attributes:
        data: a name of the registry, a hub id, or a path (csv, jsonl, json, parquet, txt with a prompt a line).
        name: the name under which results list the set; the name of the data where it is left out.
        layout: the layout of its rows; the registry's where it is left out.
        subset: the configuration of a data set on the hub.
        split: the split to read.
        revision: the commit, tag or branch of a data set on the hub.
    """

    data: str
    name: str | None = None
    layout: PromptLayout | None = None
    subset: str | None = None
    split: str | None = None
    revision: str | None = None

    @property
    def title(self) -> str:
        """The name for results."""
        return self.name or Path(self.data).name.split(".")[0]


class PromptSuiteSpec(Document):
    """A suite of prompt sets, as its YAML file says it.

    Attributes:
        name: before the names of its sets in results.
        description: one sentence.
        sets: the prompt sets that the suite asks.
        system: message to put before every prompt.
        max_new_tokens: longest answer in tokens, unless told otherwise.
    """

    name: str
    description: str = ""
    sets: list[PromptSetSpec] = Field(min_length=1)
    system: str | None = None
    max_new_tokens: int = Field(default=256, ge=1)

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"a suite's name, which is the file's unless the file gives one, has letters, digits, '.', '_' and '-' "
                f"alone, begins with a letter or digit, and is not longer than {_LONGEST_NAME}, got {shown(name)}"
            )
        return name

    @model_validator(mode="after")
    def _distinct(self) -> PromptSuiteSpec:
        titles = [entry.title for entry in self.sets]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"two sets are called '{twice[0]}'; give one of them another name")
        return self
