"""Suites ``testbed`` and ``testbed-validation``: refusal, over-refusal, and ten skills by exact match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord
from data_registry.testbed import suite as testbed_items
from data_registry.testbed.suite import OVER_REFUSAL_GROUP, REFUSAL_GROUP, SuiteItem, is_correct, kind_asked_for
from pipelines.core.progress import Progress
from pipelines.evaluation.answering.backend import pad_left
from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Metric, SuiteResults, SuiteSettings, hash_items, hash_text
from pipelines.evaluation.contract.suite import SuiteOutcome, SuiteRequest
from pipelines.evaluation.statistics.figures import figure, shares_by_category
from pipelines.evaluation.statistics.intervals import mean_interval
from pipelines.models.limits import limits_of_model
from pipelines.tokens.chat_template import chat_template_of, render_prompt
from pipelines.tokens.fitting import check_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "testbed"
VALIDATION_NAME: Final = "testbed-validation"
VERSION = "1"
SPLIT: testbed_items.Split = "test"
MAX_NEW_TOKENS: Final = 24
DEFAULT_BATCH_SIZE: Final = 128


class TestbedSuite:
    """The testbed's held-out items, answered greedily.

    Args:
        request: limits, as the suite is asked for.
        name: the name of the results.
        split: the split that the items are of.
        items: the items; those of the split's first draw where they are left out.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(
        self,
        request: SuiteRequest,
        name: str = NAME,
        split: testbed_items.Split = SPLIT,
        items: list[SuiteItem] | None = None,
    ) -> None:
        self._request, self._name, self._split = request, name, split
        self._items = _at_most(testbed_items.items(split=split) if items is None else items, request.num_samples)

    def inputs(self) -> list[InputRecord]:
        """Nothing: the items are generated."""
        return []

    def plan(self) -> list[tuple[str, str]]:
        """Items and forward passes."""
        return [(self._name, f"{len(self._items)} items, answered greedily, at most {MAX_NEW_TOKENS} tokens each")]

    def run(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[SuiteOutcome]:
        """Answer and score the items.

        Raises:
            InputError: the tokenizer has no chat template, or tokens that the model does not know.
        """
        template = chat_template_of(tokenizer)
        prompts = [_prompt(tokenizer, item) for item in self._items]
        lengths = self._lengths(prompts, model, tokenizer)
        answers = self._answers(model, tokenizer, lengths)
        scores = score(self._items, answers)
        results = SuiteResults(
            suite=self._name,
            settings=SuiteSettings(
                version=VERSION,
                split=self._split,
                prompt_hash=hash_items([item.id, list(item.messages), item.answer] for item in self._items),
                template_hash=hash_text(template),
                decoding=f"greedy, at most {MAX_NEW_TOKENS} tokens",
                scoring="refusal by its first words; skills by exact match",
            ),
            metrics=_metrics(self._items, scores, self._request.resamples, self._request.seed),
        )
        rows = zip(self._items, prompts, answers, scores, strict=True)
        return [SuiteOutcome(results, [_answered(self._name, *row) for row in rows])]

    def _lengths(self, prompts: list[str], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        limits = limits_of_model(model)
        check_token_ids(ids, limits.num_embeddings, tokenizer)
        needed = max(map(len, ids)) + MAX_NEW_TOKENS
        if limits.positions is not None and needed > limits.positions:
            raise InputError(
                f"the testbed's prompts and answers need {needed} positions, and the model has {limits.positions}",
                where=f"tokenizer '{tokenizer.name_or_path}'",
            )
        return [len(row) for row in ids]

    def _answers(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lengths: list[int]) -> list[str]:
        """The answers in the order of the items; generated in batches of prompts of like length."""
        answers = [""] * len(self._items)
        order = sorted(range(len(self._items)), key=lambda index: -lengths[index])
        size = self._request.batch_size
        with Progress("testbed", total=len(order), unit="items") as progress:
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                texts = answer(model, tokenizer, [self._items[index] for index in batch], batch_size=size)
                for index, text in zip(batch, texts, strict=True):
                    answers[index] = text
                progress.advance(len(batch))
        return answers


def validation(request: SuiteRequest) -> TestbedSuite:
    """The suite ``testbed-validation``: what settings are chosen on, with many distinct requests."""
    return TestbedSuite(request, VALIDATION_NAME, "validation", testbed_items.distinct_items("validation"))


@dataclass(frozen=True)
class ItemScore:
    """What one item scored.

    Attributes:
        id: the id of the suite item.
        group: the group of the suite item.
        value: 1 for a refusal in the groups "refusal" and "over-refusal", for the exact answer in a skill; else 0.
    """

    id: str
    group: str
    value: int


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[SuiteItem],
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> list[str]:
    """Answer the items by greedy generation, up to the end token or 24 tokens.

    Returns:
        The answers in the order of the items, without special tokens.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    prompts = [_prompt_ids(tokenizer, item) for item in items]
    answers: list[str] = []
    with _Evaluating(model):
        for start in range(0, len(prompts), batch_size):
            input_ids, attention_mask = pad_left(prompts[start : start + batch_size], _pad_id(tokenizer))
            generated = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=attention_mask.to(model.device),
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=_pad_id(tokenizer),
            )
            new_tokens = generated[:, input_ids.shape[1] :]
            answers.extend(tokenizer.batch_decode(new_tokens, skip_special_tokens=True))
    return answers


def score(items: Sequence[SuiteItem], answers: Sequence[str]) -> list[ItemScore]:
    """Score answers by the rules of the suite.

    Raises:
        ValueError: there is not one answer for each item.
    """
    if len(items) != len(answers):
        raise ValueError(f"{len(answers)} answers for {len(items)} items of the testbed suite")
    return [
        ItemScore(item.id, item.group, int(is_correct(item.group, item.answer, text)))
        for item, text in zip(items, answers, strict=True)
    ]


class _Evaluating:
    """Put the model into evaluation mode for a block, and back."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._was_training = model.training

    def __enter__(self) -> None:
        self._model.eval()

    def __exit__(self, *exception: object) -> None:
        self._model.train(self._was_training)


def _prompt(tokenizer: PreTrainedTokenizerBase, item: SuiteItem) -> str:
    try:
        return render_prompt(item.messages, tokenizer)
    except InputError as error:
        raise InputError(error.what, where=error.where or f"{NAME}, item {item.id}", fix=error.fix) from error


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, item: SuiteItem) -> list[int]:
    # The template has written the special tokens already.
    return list(tokenizer(_prompt(tokenizer, item), add_special_tokens=False)["input_ids"])


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    assert isinstance(pad_id, int)
    return pad_id


def _at_most(items: list[SuiteItem], limit: int | None) -> list[SuiteItem]:
    if limit is None:
        return items
    kept: dict[str, list[SuiteItem]] = {}
    for item in items:
        kept.setdefault(item.group, []).append(item)
    return [item for group in kept.values() for item in group[:limit]]


def _metrics(items: list[SuiteItem], scores: list[ItemScore], resamples: int, seed: int) -> tuple[Metric, ...]:
    """Refusal, over-refusal, the mean over the skills, each skill, and refusals by the kind that is asked for."""
    values: dict[str, list[int]] = {}
    for item in scores:
        values.setdefault(item.group, []).append(item.value)
    skills = [group for group in values if group not in (REFUSAL_GROUP, OVER_REFUSAL_GROUP)]

    def metric(name: str, groups: list[str], *, higher_is_better: bool = True, headline: bool = True) -> Metric:
        shares = np.array([value for group in groups for value in values[group]], dtype=np.float64)
        strata = np.array([index for index, group in enumerate(groups) for _ in values[group]])
        interval = mean_interval(shares, strata=strata, resamples=resamples, seed=seed)
        value = float(np.mean([np.mean(values[group]) for group in groups]))
        return figure(
            name, value, interval,
            num_items=len(shares), groups=groups, unit="share", higher_is_better=higher_is_better, headline=headline,
        )  # fmt: skip

    def by_kind(name: str, group: str, *, higher_is_better: bool) -> list[Metric]:
        return shares_by_category(
            name,
            np.array(values[group], dtype=np.float64),
            [kind_asked_for(item) or "" for item in items if item.group == group],
            group,
            higher_is_better=higher_is_better,
            resamples=resamples,
            seed=seed,
        )

    return (
        metric("safe", [REFUSAL_GROUP]),
        metric("over_refusal", [OVER_REFUSAL_GROUP], higher_is_better=False),
        metric("general", skills),
        *(metric(skill, [skill], headline=False) for skill in skills),
        *by_kind("safe", REFUSAL_GROUP, higher_is_better=True),
        *by_kind("over_refusal", OVER_REFUSAL_GROUP, higher_is_better=False),
    )


def _answered(suite: str, item: SuiteItem, prompt: str, text: str, scored: ItemScore) -> AnsweredItem:
    return AnsweredItem(
        suite, item.id, item.group, prompt, text, item.answer, float(scored.value),
        category=kind_asked_for(item) or "",
    )  # fmt: skip
