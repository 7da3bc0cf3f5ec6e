"""The prompts that are to be answered: of a prepared data set or a prompt set, each once, and a seeded draw of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_registry.core.documents import suggest
from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord, as_input
from data_registry.prepared import prepared_table
from data_registry.prompts.reading import prompt_set_names, read_prompt_set
from data_registry.prompts.specs import PromptSet, PromptSetSpec
from data_registry.schema import REFERENCE, Message

if TYPE_CHECKING:
    import pyarrow as pa


_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Prompts:
    """Prompts that are to be answered.

    Attributes:
        messages: the conversation up to the answer, for each prompt.
        rows: the number of the row of the data set that each prompt is from, ascending.
        num_distinct: the number of different prompts in the data set, of which these were drawn.
        num_rows: the number of rows of the data set.
        record: the record of the data set.
        references: the answer that the data set has to each prompt, the reference where it has one besides; None for a
            prompt set, which has none.
        num_ambiguous: how many of the prompts have other answers in other rows.
    """

    messages: list[list[Message]]
    rows: list[int]
    num_distinct: int
    num_rows: int
    record: InputRecord
    references: list[str] | None = None
    num_ambiguous: int = 0


def read_prompts(path: Path, num_samples: int | None, seed: int) -> Prompts:
    """Read the prompts of a data set, those that occur again left out.

    Args:
        path: the prepared data set, of either task; or, where there is no such path, the name of a prompt set of the
            registry, whose requests have no answers yet.
        num_samples: the number of prompts to draw; None for all.
        seed: the seed of the draw.

    Raises:
        InputError: there is no such data set or prompt set, it was not prepared, or is empty, or cannot be fetched.
        ArtifactError: it does not verify.
    """
    if not path.exists():
        names = prompt_set_names()
        if str(path) not in names:
            raise InputError(
                f"'{path}' is neither a data set nor a prompt set of the registry{suggest(str(path), names)}",
                fix=f"prompt sets are {', '.join(names)}; make a data set:  ogpsa prepare-data SOURCE --out DIR",
            )
        named = read_prompt_set(PromptSetSpec(data=str(path)))
        first, num_rows, record = _first_of_set(named), len(named.prompts), _record(named)
        references, ambiguous = None, set[int]()
    else:
        table, manifest = prepared_table(path)
        if len(table) == 0:
            raise InputError(f"the data set '{path}' is empty")
        first, references, ambiguous = _first_of_each(table)
        num_rows, record = len(table), as_input("data", path, manifest)
    rows = list(first)
    if num_samples is not None and num_samples < len(rows):
        chosen = np.random.default_rng(seed).permutation(len(rows))[:num_samples]
        rows = [rows[index] for index in sorted(chosen.tolist())]
    return Prompts(
        [first[row] for row in rows],
        rows,
        len(first),
        num_rows,
        record,
        None if references is None else [references[row] for row in rows],
        len(ambiguous.intersection(rows)),
    )


def _first_of_set(prompts: PromptSet) -> dict[int, list[Message]]:
    first: dict[str, int] = {}
    for number, prompt in enumerate(prompts.prompts):
        first.setdefault(prompt.text, number)
    return {number: [{"role": "user", "content": text}] for text, number in first.items()}


def _record(prompts: PromptSet) -> InputRecord:
    """The record of a prompt set: what it asks, whatever it was read from."""
    asked = json.dumps([[prompt.id, prompt.text] for prompt in prompts.prompts])
    fingerprint = hashlib.sha256(asked.encode()).hexdigest()
    return InputRecord(role="data", path=prompts.name, kind="prompts", fingerprint=fingerprint)


def _first_of_each(table: pa.Table) -> tuple[dict[int, list[Message]], dict[int, str], set[int]]:
    """By the number of the first row that asks it: each prompt, its answer, and whether other rows answer otherwise."""
    seen: dict[str, int] = {}
    prompts: dict[int, list[Message]] = {}
    answers: dict[int, str] = {}
    ambiguous: set[int] = set()
    batches = table.to_batches(max_chunksize=_ROWS_AT_ONCE)
    for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
        prompt = _before_answer(row["messages"]) if "messages" in row else list(row["prompt"])
        answer = _answer(row)
        first = seen.setdefault(json.dumps(prompt, sort_keys=True), number)
        if first == number:
            prompts[number], answers[number] = prompt, answer
        elif answers[first] != answer:
            ambiguous.add(first)
    return prompts, answers, ambiguous


def _answer(row: Mapping[str, Any]) -> str:
    answer = row["messages"] if "messages" in row else row["chosen"]
    return str(row.get(REFERENCE) or answer[-1]["content"])


def _before_answer(messages: Sequence[Message]) -> list[Message]:
    return list(messages[:-1])
