"""What an answer is: how it is made, what is kept of it as it was given, and the item that scoring makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from data_registry.core.errors import ArtifactError, first_line
from data_registry.formats.prompt_sets import CONTEXT_SEPARATOR

ANSWERS_FILE = "answers.parquet"
_NUMBERS = ("score", "weight")

Finish = Literal["end", "length", "too_long"]
"""How an answer ended: with the end of turn, at the limit, or never begun since the prompt fills the context."""


@dataclass(frozen=True)
class Decoding:
    """How answers are made.

    Attributes:
        max_new_tokens: longest answer in tokens.
        temperature: the temperature of sampling; 0 is greedy.
        top_p: smallest share of probability that is sampled from.
        seed: the seed of sampling.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @property
    def is_greedy(self) -> bool:
        """Whether every token is the most likely one."""
        return self.temperature == 0.0

    def describe(self) -> str:
        """The decoding in words, for the settings of results."""
        how = (
            "greedy" if self.is_greedy else f"temperature {self.temperature:g}, top-p {self.top_p:g}, seed {self.seed}"
        )
        return f"{how}, at most {self.max_new_tokens} tokens"


@dataclass(frozen=True)
class StoredAnswer:
    """One answer, as it was given and before anybody judged it.

    Attributes:
        suite: the suite's name, as in the results.
        id: unique in the suite.
        group: the item's group, as in the results, such as ``harmful``.
        category: a finer kind; may be empty.
        question: the last message of the user.
        prompt: what the model was given, with the template.
        answer: the answer without special tokens; None where the prompt was too long to be answered.
        expected: the right answer where there is one.
        finish: ``end``, ``length`` (cut off at the limit) or ``too_long``.
        num_prompt_tokens: the number of tokens of the prompt.
        num_tokens: the number of tokens of the answer, with its end of turn.
        context: what stands before the request in the question; empty where it has none.
    """

    suite: str
    id: str
    group: str
    category: str
    question: str
    prompt: str
    answer: str | None
    expected: str | None
    finish: str
    num_prompt_tokens: int
    num_tokens: int
    context: str = ""

    @property
    def request(self) -> str:
        """The question without its context."""
        return self.question.removeprefix(f"{self.context}{CONTEXT_SEPARATOR}") if self.context else self.question

    @property
    def key(self) -> tuple[str, str, str]:
        """The key of an answer; it holds the prompt, so that an answer to another is not taken for it."""
        return self.suite, self.id, self.prompt


@dataclass(frozen=True)
class AnsweredItem:
    """One item as it was scored: a row of ``answers.parquet``, by which figures can be traced and compared in pairs.

    Attributes:
        suite: the suite's name, as in the results.
        id: unique in the suite and stable.
        group: the item's group, such as a skill.
        prompt: what the model was given: text with the template, or the last question where a given answer is scored.
        answer: the model's answer, or the given one.
        expected: the answer that counts as right, where there is a single one.
        score: the item's score; the figures are means of such scores.
        weight: the item's weight in these means.
        category: a finer kind within the group; may be empty.
    """

    suite: str
    id: str
    group: str
    prompt: str
    answer: str
    expected: str | None
    score: float
    weight: float = 1.0
    category: str = ""


def write_answers(folder: Path, groups: Iterable[Sequence[AnsweredItem]]) -> None:
    """Write ``answers.parquet``, group after group."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema(
        [(field.name, pa.float64() if field.name in _NUMBERS else pa.string()) for field in fields(AnsweredItem)]
    )
    with parquet.ParquetWriter(folder / ANSWERS_FILE, schema, compression="zstd") as writer:
        for items in groups:
            writer.write_table(pa.Table.from_pylist([asdict(item) for item in items], schema))


def read_answers(folder: Path) -> list[AnsweredItem]:
    """The items of an artifact of ``evaluate``, in order.

    Raises:
        ArtifactError: the file is missing or no table of answers.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = folder / ANSWERS_FILE
    try:
        # Opened once, for hundreds are read for one report; and so no pyarrow.dataset is needed, which imports pandas.
        with parquet.ParquetFile(file) as opened:
            present = opened.schema_arrow.names
            # Results that were made before items had categories have no such column.
            columns = [
                field.name for field in fields(AnsweredItem) if field.name != "category" or field.name in present
            ]
            missing = [name for name in columns if name not in present]
            if missing:
                raise ValueError(f"it has no column {missing[0]}")
            table = opened.read(columns=columns).to_pydict()
        # By place, as the fields are: with keywords, a hundred thousand items take twice as long.
        items = [AnsweredItem(*row) for row in zip(*(table[name] for name in columns), strict=True)]
    except (OSError, TypeError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"'{file}' cannot be read: {first_line(error)}", where=str(file)) from error
    for number, item in enumerate(items, start=1):
        problem = _problem(item)
        if problem is not None:
            raise ArtifactError(f"'{file}' is no table of answers: {problem}", where=f"{file}, row {number}")
    return items


def _problem(item: AnsweredItem) -> str | None:
    """What is wrong with an item that was read, None if nothing is."""
    if set(map(type, (item.suite, item.id, item.group, item.prompt, item.answer, item.category))) != {str}:
        return "a text is missing"
    are_numbers = isinstance(item.score, float) and isinstance(item.weight, float)
    if not (are_numbers and math.isfinite(item.score) and math.isfinite(item.weight) and item.weight > 0):
        return f"score {item.score} and weight {item.weight} must be numbers, the weight a positive one"
    return None
