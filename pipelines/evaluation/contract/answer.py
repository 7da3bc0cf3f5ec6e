"""How an answer is made, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data_registry.formats.prompt_sets import CONTEXT_SEPARATOR

if TYPE_CHECKING:
    pass


Finish = Literal["end", "length", "too_long"]


@dataclass(frozen=True)
class Decoding:
    """How answers are made.

    Attributes:
        max_new_tokens: longest answer in tokens.
        temperature: of sampling; 0 is greedy.
        top_p: smallest share of probability that is sampled from.
        seed: of sampling.
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
        """For the settings of results."""
        how = (
            "greedy" if self.is_greedy else f"temperature {self.temperature:g}, top-p {self.top_p:g}, seed {self.seed}"
        )
        return f"{how}, at most {self.max_new_tokens} tokens"


@dataclass(frozen=True)
class StoredAnswer:
    """One answer, as it was given and before anybody judged it.

    Attributes:
        suite: as in the results.
        id: unique in the suite.
        group: as in the results, such as ``harmful``.
        category: a finer kind; may be empty.
        question: the last message of the user.
        prompt: what the model was given, with the template.
        answer: without special tokens; None where the prompt was too long to be answered.
        expected: the right answer where there is one.
        finish: ``end``, ``length`` (cut off at the limit) or ``too_long``.
        num_prompt_tokens: of the prompt.
        num_tokens: of the answer, with its end of turn.
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
        """What it is found by: with the prompt, so that the answer to another is not taken for one to this."""
        return self.suite, self.id, self.prompt
