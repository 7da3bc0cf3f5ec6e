"""Sentences must follow from the figures: every direction, and silence where nothing is shown."""

import numpy as np
import pytest

from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.reporting.findings import TestbedRun, describe_gain, describe_tax
from tests.evaluation.test_results import metric, results

GROUPS = {"safe": "refusal", "over_refusal": "over-refusal", "general": "add"}
NUM_ITEMS = 100


def measured(run: str, **shares: float) -> TestbedRun:
    """A model with these shares of ones; a smaller share's items are the first of a larger one's."""
    items = [
        AnsweredItem("testbed", f"{group}/{number}", group, "", "", None, float(number < shares[name] * NUM_ITEMS))
        for name, group in GROUPS.items()
        for number in range(NUM_ITEMS)
    ]
    metrics = [
        metric(name, float(np.mean([item.score for item in items if item.group == group])), groups=(group,))
        for name, group in GROUPS.items()
    ]
    return TestbedRun(results(run, metrics=metrics), items)


START = measured("start", safe=0.0, over_refusal=0.0, general=0.97)
NAIVE = measured("naive", safe=0.98, over_refusal=0.6, general=0.8)


def test_a_tax_is_named_with_its_interval():
    text = describe_tax(START, NAIVE, seed=0)
    assert (
        "refuses 98.0 % of the harmful requests (before: 0.0 %), but it loses 17.0 points of general ability [" in text
    )
    assert "refuses 60.0 % of the harmless requests that look like them (before: 0.0 %)." in text


def test_no_tax_is_not_called_one():
    text = describe_tax(START, measured("kind", safe=0.98, over_refusal=0.0, general=0.97), seed=0)
    assert ", and its general ability shows no change (+0.0 points [-3.7, 3.7])" in text
    assert "but" not in text


def test_a_gain_is_said_as_one():
    better = measured("projected", safe=0.98, over_refusal=0.1, general=0.95)
    text = describe_gain(NAIVE, [better], seed=0)
    assert "projected refuses 98.0 % of the harmful requests, keeps 15.0 points more general ability [" in text
    assert "and refuses harmless requests 50.0 points less often [" in text


def test_a_loss_is_said_as_one_safety_included():
    worse = measured("projected", safe=0.7, over_refusal=0.8, general=0.6)
    text = describe_gain(NAIVE, [worse], seed=0)
    assert "refuses 70.0 % of the harmful requests (-28.0 points [" in text
    assert "loses 20.0 points more general ability [" in text
    assert "refuses harmless requests 20.0 points more often [" in text


def test_no_difference_is_said_as_none():
    text = describe_gain(NAIVE, [measured("projected", safe=0.98, over_refusal=0.61, general=0.81)], seed=0)
    assert "shows no difference in general ability (+1.0 points [" in text
    assert "none in refusals of harmless requests (+1.0 points [" in text
    assert "more" not in text


def test_nothing_is_minus_zero():
    text = describe_gain(NAIVE, [measured("projected", safe=0.98, over_refusal=0.6, general=0.8)], seed=0)
    assert "(+0.0 points [-3.7, 3.7])" in text
    assert "-0.0" not in text


def test_each_is_one_sentence():
    better = measured("projected", safe=0.98, over_refusal=0.1, general=0.95)
    for text in (describe_tax(START, NAIVE, seed=0), describe_gain(NAIVE, [better, NAIVE], seed=0)):
        assert text.endswith(".")
        assert text.count(". ") == 0


def test_figures_that_are_not_there_are_not_made_up():
    with pytest.raises(ValueError, match="has no figure 'general'"):
        describe_tax(TestbedRun(results("other"), []), NAIVE, seed=0)
