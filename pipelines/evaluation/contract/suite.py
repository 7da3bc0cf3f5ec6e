"""What a suite is: asked for by a request, it measures a model, or has it answer prompts and scores the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from data_registry.core.manifest import InputRecord
from pipelines.evaluation.contract.answer import AnsweredItem, Decoding, StoredAnswer
from pipelines.evaluation.contract.results import SuiteResults
from pipelines.evaluation.contract.verdict import Judge, Judged

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PromptItem:
    """One thing to be asked.

    Attributes:
        suite: the suite's name, as in the results.
        id: unique in the suite.
        group: the item's group, as in the results.
        messages: the conversation up to the answer.
        category: a finer kind; may be empty.
        expected: the right answer where there is one.
        context: what stands before the request in the last message; empty where it has none.
    """

    suite: str
    id: str
    group: str
    messages: tuple[dict[str, str], ...]
    category: str = ""
    expected: str | None = None
    context: str = ""


class GeneratingSuite(ABC):
    """A suite whose items are answered first, all together, and scored afterwards, without the model."""

    @property
    @abstractmethod
    def decoding(self) -> Decoding:
        """How the suite's answers are made."""

    @property
    def is_judged(self) -> bool:
        """Whether a judge is needed to score the answers."""
        return False

    def check_judge(self, judge: Judge) -> None:
        """Refuse a judge that has nothing to say about what is asked; called for suites that are judged.

        Raises:
            ConfigError: saying what it cannot judge.
        """
        assert self.is_judged, "a judge is only for suites that are judged"

    @abstractmethod
    def inputs(self) -> list[InputRecord]:
        """The inputs that the suite reads."""

    @abstractmethod
    def plan(self) -> list[tuple[str, str]]:
        """What the suite will do, in words, for a dry run."""

    @abstractmethod
    def items(self) -> list[PromptItem]:
        """The items that the suite asks, in order."""

    @abstractmethod
    def score(self, answers: Sequence[StoredAnswer], template_hash: str, judged: Judged | None) -> list[SuiteOutcome]:
        """Figures from the answers to all items, in their order.

        Args:
            answers: the answers to the items.
            template_hash: the hash of the chat template.
            judged: the judge's verdicts on the answers, where there is one.

        Raises:
            InputError: no item could be answered.
        """


@dataclass(frozen=True)
class SuiteRequest:
    """What a suite is asked to do.

    Attributes:
        data: prepared data sets, for suites that take any.
        num_samples: most items of a group or data set; None for all.
        batch_size: most items in one forward pass.
        max_length: longest sequence in tokens, where given answers are scored.
        seed: the seed of draws, sampling and bootstrap.
        resamples: the number of resamples that the bootstrap draws.
        harmful: files with prompts to be refused, for the suite ``prompts``.
        harmless: files with prompts to be answered.
        system: message before every prompt that is to be answered; None for the suite's own.
        max_new_tokens: longest answer; None for the suite's own limit.
        temperature: the temperature of sampling; 0 is greedy.
        top_p: the smallest share of probability that is sampled from.
        tasks: tasks of lm-eval, for the suite ``capability``.
        task_dir: a directory with tasks of one's own.
        shots: worked examples before each prompt of a task; None for the task's own number.
        chat_prompts: write the prompts of tasks with the chat template.
        trust_remote_code: run code that tasks of one's own bring.
    """

    data: tuple[Path, ...]
    num_samples: int | None
    batch_size: int
    max_length: int
    seed: int
    resamples: int
    harmful: tuple[Path, ...] = ()
    harmless: tuple[Path, ...] = ()
    system: str | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    tasks: tuple[str, ...] = ()
    task_dir: Path | None = None
    shots: int | None = None
    chat_prompts: bool = False
    trust_remote_code: bool = False

    def decoding(self, max_new_tokens: int) -> Decoding:
        """How answers are made, with a suite's own limit where none was asked for."""
        return Decoding(self.max_new_tokens or max_new_tokens, self.temperature, self.top_p, self.seed)


@dataclass(frozen=True)
class SuiteOutcome:
    """The figures of a suite (or of one of its data sets) and the items behind them."""

    results: SuiteResults
    items: list[AnsweredItem]


class Suite(Protocol):
    """One suite, made for a request. Making it reads what it needs and refuses what it cannot use."""

    def inputs(self) -> list[InputRecord]:
        """Artifacts that it reads."""
        ...

    def plan(self) -> list[tuple[str, str]]:
        """What the suite will do, in words, for a dry run."""
        ...

    def run(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[SuiteOutcome]:
        """Measure a model."""
        ...


AnySuite = Suite | GeneratingSuite
