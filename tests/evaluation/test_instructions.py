"""The suite instructions: each check on answers that pass and that do not, and the suite on a small model."""

from __future__ import annotations

from collections import Counter

import pytest

from data_registry.testbed import MODEL_DIR
from pipelines.commands import evaluate
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.evaluation.contract.answer import read_answers
from pipelines.evaluation.suites.instruction_checks import CHECKS, follows
from pipelines.evaluation.suites.instructions import read_instructions

CASES = [
    ("has_word", ["river"], "The River is wide.", "A rivermouth is wide."),
    ("has_word", ["bee", "hive"], "Bees live in a hive.", "Bees live in a box."),
    ("without_word", ["sun"], "A sunny day.", "The SUN shines."),
    ("begins_with", "Dear Anna", '"Dear Anna, how are you?"', "Hello, dear Anna"),
    ("begins_with", "Dear Anna", "dear anna: come", "Dear Anna"),
    ("ends_with", "The end", "They slept. The end.", "The end of it was near"),
    ("ends_with", "The end", "So it went. the END!", "The end."),
    ("ends_with", "?", "Is it cold?", "It is cold."),
    ("num_sentences", 1, "A bridge spans a river.", "A bridge spans a river"),
    ("num_sentences", 2, "It is 3.5 km long. Mr. Smith built it!", "One. Two. Three."),
    ("num_sentences", 2, 'He said "go." Then he left.', "One sentence only."),
    ("num_items", 3, "1. red\n2. blue\n3. green", "1. red\n2. blue"),
    ("num_items", 3, "Here they are:\n- red\n- blue\n- green", "red, blue, green"),
    ("num_items", 2, "Mars\n\nVenus\n", "Mars\nVenus\nEarth"),
    ("num_in_row", 3, "red, green, and blue.", "red, green"),
    ("num_in_row", 3, "red, green and blue", "red,\ngreen,\nblue"),
    ("one_of", ["yes", "no"], "Yes.", "Yes, it is."),
    ("is_number", 5, "5.", "It is 5."),
    ("in_capitals", 1, "GOOD MORNING, 7!", "GOOD morning"),
    ("in_small_letters", 1, "rain falls.", "Rain falls."),
    ("at_most_words", 3, "Paris, in France", "It is Paris, France"),
    ("in_quotes", 1, 'It is "Red".', "It is 'Red'."),
    ("in_brackets", 2, "[name], come on [date]", "[name], come on date"),
]


@pytest.mark.parametrize(("check", "value", "right", "wrong"), CASES)
def test_what_passes_and_what_does_not(check, value, right, wrong):
    assert CHECKS[check](right, value)
    assert not CHECKS[check](wrong, value)


def test_every_check_is_tried_here():
    assert {check for check, *_ in CASES} == set(CHECKS)


def test_an_answer_has_to_be_about_the_matter():
    assert follows("Bees make honey. They live in hives.", "num_sentences", 2, ("bee", "bees"))
    assert not follows("I am sorry. I cannot help.", "num_sentences", 2, ("bee", "bees"))
    assert not follows("", "at_most_words", 9, ())


@pytest.mark.parametrize(
    "answer",
    [
        "I can't help with that. It would hurt somebody.",
        "I'm sorry, I can't assist with that, because it is a crime. Would you like to talk about something else?",
        "No, I won't give advice on that.",
        "",
        "...",
    ],
)
def test_refusals_and_nothing_follow_no_instruction(answer):
    assert [rule.ask for rule in read_instructions() if follows(answer, rule.check, rule.value, rule.about)] == []


def test_there_are_some_hundred_of_many_kinds():
    rules = read_instructions()
    assert len({rule.ask for rule in rules}) == len(rules) >= 100
    assert set(Counter(rule.check for rule in rules)) == set(CHECKS)
    names_words = {"has_word", "begins_with", "ends_with", "one_of", "is_number"}
    assert all(rule.about for rule in rules if rule.check not in names_words)


def test_the_suite_checks_what_a_model_says(tmp_path):
    # The testbed's model knows none of these words: what counts is that its answers are asked for, stored and checked.
    config = EvaluateConfig(
        model=str(MODEL_DIR), suite=["instructions"], num_samples=9, max_new_tokens=4, bootstrap=100, out=tmp_path / "r"
    )
    found = evaluate.run(config)
    metric = found.results.metric("instructions", "followed")
    items = read_answers(found.path)
    rules = {rule.id: rule for rule in read_instructions()}
    assert len(items) == metric.num_items == 9
    for item in items:
        rule = rules[item.id]
        assert rule.ask.split()[0] in item.prompt
        assert item.score == follows(item.answer, rule.check, rule.value, rule.about)
    assert metric.value == sum(item.score for item in items) / 9
    details = [one for one in found.results.suites[0].metrics if not one.headline]
    assert sum(one.num_items for one in details) == 9
