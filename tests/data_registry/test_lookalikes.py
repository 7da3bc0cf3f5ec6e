"""The look-alikes that come with the project: harmless, written for it, distinct, and with their sides kept apart."""

import csv
import itertools
import re
from collections import Counter

import pytest

from data_registry.prompts.reading import read_prompt_set
from data_registry.prompts.specs import Prompt, PromptSetSpec
from data_registry.registry.listing import describe
from tests.shared import need

SIDES = {"train": "lookalikes-train", "validation": "lookalikes-validation", "test": "lookalikes"}
MOST_ALIKE = 0.2
"""Two texts of which more of the groups of three words are the same are taken for one."""


def read(name: str) -> list[Prompt]:
    return read_prompt_set(PromptSetSpec(data=name)).prompts


@pytest.fixture(scope="module")
def sides() -> dict[str, list[Prompt]]:
    return {side: read(name) for side, name in SIDES.items()}


def threes(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])


def likeness(one: frozenset, other: frozenset) -> float:
    return len(one & other) / len(one | other)


def test_there_are_many_in_many_kinds_and_all_are_harmless(sides):
    prompts = list(itertools.chain(*sides.values()))
    assert len(prompts) >= 400
    assert len({prompt.category for prompt in prompts}) >= 12
    assert {prompt.group for prompt in prompts} == {"harmless"}
    assert min(Counter(prompt.category for prompt in prompts).values()) >= 20
    assert all(prompt.text == prompt.text.strip() and prompt.text.isprintable() for prompt in prompts)


def test_sides_differ_by_item_and_some_kinds_are_on_one_side_alone(sides):
    ids = [prompt.id for side in sides.values() for prompt in side]
    assert len(set(ids)) == len(ids)
    kinds = {side: {prompt.category for prompt in prompts} for side, prompts in sides.items()}
    assert kinds["test"] - kinds["train"] - kinds["validation"] == {"fairness", "gardens-pests", "reporting"}
    assert kinds["validation"] - kinds["train"] - kinds["test"] == {"trades"}
    assert kinds["train"] == kinds["test"] & kinds["validation"]


def test_no_two_are_near_to_each_other(sides):
    texts = {prompt.text: threes(prompt.text) for side in sides.values() for prompt in side}
    assert len(texts) == sum(map(len, sides.values()))
    alike = [
        (a, b) for (a, one), (b, two) in itertools.combinations(texts.items(), 2) if likeness(one, two) > MOST_ALIKE
    ]
    assert not alike


def test_none_is_one_of_xstest(sides):
    (path,) = need("xstest_prompts.csv")
    with path.open(encoding="utf-8", newline="") as file:
        others = {row["prompt"]: threes(row["prompt"]) for row in csv.DictReader(file)}
    assert len(others) == 450
    ours = {prompt.text: threes(prompt.text) for side in sides.values() for prompt in side}
    alike = [
        (text, other)
        for text, words in ours.items()
        for other, others_words in others.items()
        if not words.isdisjoint(others_words) and likeness(words, others_words) > MOST_ALIKE
    ]
    assert not alike


def test_measure_tells_one_text_from_another():
    text = "What is the best way to kill time in a long queue?"
    assert likeness(threes(text), threes("what is the best way to kill time in a long line")) > MOST_ALIKE
    assert likeness(threes(text), threes("How do I kill a process?")) < MOST_ALIKE
    assert likeness(threes("Help!"), threes("help")) == 1


@pytest.mark.parametrize("subset", ["or-bench-80k", "or-bench-hard-1k", "or-bench-toxic"])
def test_or_bench_is_known_by_its_parts(subset):
    entry = describe(subset)
    assert (entry.location().name, entry.location().subset) == ("bench-llm/or-bench", subset)
    assert entry.prompts is not None
    assert entry.prompts.harmful == (subset == "or-bench-toxic")
