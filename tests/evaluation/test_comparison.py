"""Paired comparison of two models, and the file of answers that it reads."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as parquet
import pytest

from data_registry.core.errors import ArtifactError
from pipelines.evaluation.contract.answer import AnsweredItem, read_answers, write_answers
from pipelines.evaluation.statistics.comparison import paired_difference
from pipelines.evaluation.statistics.intervals import difference_interval, mean_interval
from tests.evaluation.test_results import metric


def items(scores, group="refusal", weights=None) -> list[AnsweredItem]:
    return [
        AnsweredItem("testbed", f"{group}/{number}", group, "p", "a", None, float(score), weight)
        for number, (score, weight) in enumerate(zip(scores, weights or [1.0] * len(scores), strict=True))
    ]


def compare(first, second, figure=None, suite="testbed"):
    return paired_difference(figure or metric(), suite, first, second, resamples=1000, seed=0)


def test_the_difference_is_second_minus_first():
    found = compare(items([0, 0, 0, 1]), items([1, 1, 0, 1]))
    assert found.value == 0.5
    assert found.num_items == 4
    assert found.interval.low <= 0.5 <= found.interval.high


def test_items_are_paired_by_name_not_by_place():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, 200)
    first, second = items(scores), items(scores)[::-1]
    found = compare(first, second)
    assert found.value == 0.0
    # All changes are zero: the interval is Wilson's bound both ways, not that of unpaired shares.
    assert found.interval.high == -found.interval.low == pytest.approx(0.0188, abs=1e-4)
    assert not found.is_shown


def test_pairing_makes_the_interval_narrower():
    rng = np.random.default_rng(1)
    easy = (rng.random(300) < 0.5).astype(float)
    better = np.where(rng.random(300) < 0.08, 1.0, easy)
    found = compare(items(easy), items(better))
    apart = mean_interval(better, resamples=1000, seed=0)
    assert found.interval.high - found.interval.low < 0.6 * (apart.high - apart.low)
    assert found.is_shown


def test_groups_of_a_figure_count_equally_and_others_not_at_all():
    figure = metric("general", groups=("add", "sort"))
    first = items([0] * 10, "add") + items([0] * 2, "sort") + items([0] * 5, "refusal")
    second = items([1] * 10, "add") + items([0] * 2, "sort") + items([1] * 5, "refusal")
    found = compare(first, second, figure)
    assert (found.value, found.num_items) == (0.5, 12)


def test_losses_are_compared_per_token():
    figure = metric("loss", unit="nats", groups=("facts",))
    first = items([1.0, 2.0, 4.0], "facts", [1.0, 1.0, 8.0])
    second = items([1.0, 2.0, 3.0], "facts", [1.0, 1.0, 8.0])
    assert compare(first, second, figure).value == pytest.approx(-0.8)


def test_a_figure_of_one_category_is_compared_on_its_items_alone():
    def of_kinds(scores):
        return [replace(item, category=kind) for item, kind in zip(items(scores), "aabb", strict=True)]

    first, second = of_kinds([0, 0, 1, 1]), of_kinds([1, 0, 0, 0])
    found = compare(first, second, metric(name="safe/b", category="b"))
    assert (found.value, found.num_items) == (-1.0, 2)
    assert compare(first, second).num_items == 4


def test_answers_of_before_there_were_categories_are_read(tmp_path):
    write_answers(tmp_path, [items([0, 1])])
    table = parquet.read_table(tmp_path / "answers.parquet")
    parquet.write_table(table.drop_columns(["category"]), tmp_path / "answers.parquet")
    assert read_answers(tmp_path) == items([0, 1])


def test_other_items_are_never_compared():
    with pytest.raises(ValueError, match="not asked the same items"):
        compare(items([1, 0]), items([1, 0, 1]))
    with pytest.raises(ValueError, match="not asked the same items"):
        compare(items([1]), items([1]), suite="other")


def test_differences_are_covered_at_the_nominal_rate():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(300):
        changes = rng.choice([-1.0, 0.0, 1.0], p=[0.02, 0.9, 0.08], size=100)
        found = difference_interval(changes, resamples=400, seed=seed)
        hits += found.low <= 0.06 <= found.high
    assert 0.9 <= hits / 300 <= 0.99


def test_when_every_item_changed_the_bound_is_one_sided():
    found = difference_interval(np.full(20, -1.0), resamples=100, seed=0)
    assert (found.low, found.method) == (-1.0, "wilson")
    assert found.high == pytest.approx(-0.839, abs=1e-3)


def test_answers_read_back_as_they_were_written(tmp_path):
    first, second = items([0, 1]), [replace(item, expected="yes") for item in items([0.5], "add", [3.0])]
    write_answers(tmp_path, [first, second])
    assert read_answers(tmp_path) == first + second


def test_what_is_no_table_of_answers_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_answers(tmp_path)
    (tmp_path / "answers.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_answers(tmp_path)
