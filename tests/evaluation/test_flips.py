"""Flips and McNemar's test, against scipy and by hand."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.statistics.comparison import count_flips, mcnemar
from tests.evaluation.test_results import metric


def items(scores, suite="testbed", group="safe"):
    return [AnsweredItem(suite, str(number), group, "p", "a", None, score) for number, score in enumerate(scores)]


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_p_value_is_scipys(gained, lost):
    expected = binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_the_p_value_is_the_literal_sum():
    for gained, lost in ((0, 0), (1, 0), (3, 3), (2, 9), (40, 12), (300, 251), (1, 120)):
        total = gained + lost
        tail = sum(comb(total, count) for count in range(min(gained, lost) + 1))
        assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail / 2**total), rel=1e-12)


def test_thousands_of_flips_do_not_overflow():
    assert mcnemar(5000, 5000) == 1.0
    assert 0 < mcnemar(2500, 2800) < 1e-4


def test_flips_are_counted_in_their_direction_whatever_the_order():
    first, second = items([0, 0, 1, 1, 1, 0]), items([1, 0, 0, 1, 0, 1])[::-1]
    flips = count_flips(metric(groups=("safe",)), "testbed", first, second)
    assert (flips.gained, flips.lost, flips.num_items) == (2, 2, 6)
    assert flips.p_value == 1.0
    one_way = count_flips(metric(groups=("safe",)), "testbed", items([0] * 6), items([1] * 6))
    assert one_way.p_value == pytest.approx(2 / 2**6)


def test_items_of_other_suites_do_not_count():
    first = [*items([0, 1]), *items([1, 1], suite="other")]
    assert count_flips(metric(groups=("safe",)), "testbed", first, items([1, 1])).num_items == 2


def test_graded_scores_have_no_flips():
    assert count_flips(metric(groups=("safe",)), "testbed", items([0.5, 1]), items([1, 1])) is None


def test_other_items_and_negative_counts_are_refused():
    with pytest.raises(ValueError, match="not asked the same items"):
        count_flips(metric(groups=("safe",)), "testbed", items([0, 1]), items([1]))
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 2)
