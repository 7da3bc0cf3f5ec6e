"""Which anchor rows belong to a step and to each of its forward passes; and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_registry.core.errors import ConfigError, OgpsaError
from data_registry.testbed import MODEL_DIR
from data_registry.testbed.pools import rows as pool_rows
from pipelines.commands import sample
from pipelines.configs.sample import SampleConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.config import resolve
from pipelines.models.limits import Limits
from pipelines.tokens.fitting import Bounds
from pipelines.tokens.tokenizer import load_tokenizer
from pipelines.training.data.anchor_schedule import AnchorSchedule, SharedSchedule, rows_per_step
from pipelines.training.data.anchors import AnchorRows, part_of
from tests.preparing.small_sources import prepare


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_every_pass_has_every_row_once_and_each_pass_another_order(num_rows, per_step, seed, start):
    schedule = AnchorSchedule(num_rows, per_step, seed)
    steps = [schedule.step(number) for number in range(start + 80)]
    assert all(len(step) == per_step for step in steps)
    places = [row for step in steps for row in step]
    for first in range(0, len(places) - num_rows, num_rows):
        assert sorted(places[first : first + num_rows]) == list(range(num_rows))
    assert schedule.step(start) == AnchorSchedule(num_rows, per_step, seed).step(start)
    if num_rows > 12:
        assert places[:num_rows] != places[num_rows : 2 * num_rows]
        assert places[:num_rows] != AnchorSchedule(num_rows, num_rows, seed + 1).step(0)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1.0, 0.3, 0.7, 2.5, 10.0])), min_size=1, max_size=4),
    st.integers(1, 7),
    st.integers(0, 999),
)
def test_sets_have_their_shares_in_exact_numbers(sets, per_step, seed):
    sizes, shares = zip(*sets, strict=True)
    schedule = SharedSchedule(sizes, shares, per_step, seed)
    given_rows = Counter()
    for number in range(40):
        step = schedule.step(number)
        assert len(step) == per_step
        given_rows.update(step)
        for which, share in enumerate(shares):
            count = sum(times for (of, _), times in given_rows.items() if of == which)
            assert abs(count - (number + 1) * per_step * share / sum(shares)) < 1.01
    for which, size in enumerate(sizes):
        times = [given_rows[which, row] for row in range(size)]
        assert max(times) - min(times) <= 1
    assert SharedSchedule(sizes, shares, per_step, seed).step(25) == schedule.step(25)


def test_one_set_has_the_order_of_its_rows_alone():
    alone, shared = AnchorSchedule(9, 4, 3), SharedSchedule([9], [], 4, 3)
    assert [shared.step(number) for number in range(9)] == [[(0, row) for row in alone.step(n)] for n in range(9)]


@given(st.lists(st.integers(0, 99), min_size=1, max_size=20), st.integers(1, 25))
def test_the_passes_of_a_step_share_its_rows(rows, num_slots):
    parts = [part_of(rows, slot, num_slots) for slot in range(num_slots)]
    counted = Counter(row for part, weight in parts if weight for row in part)
    assert counted == Counter(rows)
    assert all(part for part, _ in parts)
    assert {weight for _, weight in parts} <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("num_safety", "ratio", "expected"), [(16, 0.25, 5), (12, 0.25, 4), (8, 0.5, 8), (4, 0.01, 1), (6, 0.4, 4)]
)
def test_rows_of_a_step(num_safety, ratio, expected):
    assert rows_per_step(num_safety, ratio) == expected
    share = Fraction(str(ratio))
    assert expected == 1 or abs(expected - num_safety * share / (1 - share)) <= Fraction(1, 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in pool_rows("general", num_samples=4)))
    return prepare(source, folder / "prepared").path


@pytest.fixture(scope="module")
def samples(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("samples") / "own"
    flags = {"model": str(MODEL_DIR), "data": str(data), "out": str(out), "log_probs": 5, "max_new_tokens": 20}
    return sample.run(resolve(SampleConfig, flags=flags)).path


def config(**options) -> TrainSftConfig:
    return resolve(TrainSftConfig, flags={"model": str(MODEL_DIR), "data": "data", "out": "out", **options})


def anchor_rows(options, tokenizer, limits=None) -> AnchorRows:
    (path,), bounds = options.anchor, Bounds(options.longest, options.drop_too_long, limits or Limits())
    return AnchorRows(path, options.anchor_kind, options, tokenizer, bounds)


def test_rows_that_the_model_has_no_room_for(samples):
    tokenizer = load_tokenizer(MODEL_DIR)
    whole = anchor_rows(config(anchor=samples), tokenizer)
    lengths = sorted(len(whole[index].ids) for index in range(len(whole)))
    limits = Limits(None, lengths[-1] - 1)
    with pytest.raises(OgpsaError, match=f"rows are longer than the {limits.positions} positions"):
        anchor_rows(config(anchor=samples), tokenizer, limits)
    left = anchor_rows(config(anchor=samples, drop_too_long=True), tokenizer, limits)
    assert sorted(len(left[index].ids) for index in range(len(left))) == [n for n in lengths if n < lengths[-1]]
    with pytest.raises(OgpsaError, match="embeddings for 5 only"):
        anchor_rows(config(anchor=samples), tokenizer, Limits(5))


def test_long_rows_are_cut_with_what_was_expected_at_them(samples):
    tokenizer = load_tokenizer(MODEL_DIR)
    whole = anchor_rows(config(anchor=samples), tokenizer)
    longest = max(len(whole[index].ids) for index in range(len(whole)))
    cut = anchor_rows(config(anchor=samples, max_length=longest - 1), tokenizer)
    for index in range(len(cut)):
        assert len(cut[index].start.ids) == len(cut[index].places) == cut.num_places(index)
    assert sum(map(cut.num_places, range(len(cut)))) < sum(map(whole.num_places, range(len(whole))))
    with pytest.raises(OgpsaError, match="--max-length 2"):
        anchor_rows(config(anchor=samples, max_length=2), tokenizer)


def test_divergence_needs_samples_with_log_probabilities_of_the_same_tokens(data, samples, tmp_path):
    tokenizer = load_tokenizer(MODEL_DIR)
    with pytest.raises(ConfigError, match="own answers"):
        anchor_rows(config(anchor=data), tokenizer)
    assert anchor_rows(config(anchor=data, anchor_kind="ce"), tokenizer)[0].start is None
    assert len(anchor_rows(config(anchor=samples), tokenizer)) == 4
    with pytest.raises(ConfigError, match="another tokenizer"):
        anchor_rows(config(anchor=samples), _with_other_numbers(tokenizer))


def _with_other_numbers(tokenizer):
    """The tokenizer with the numbers of its words the other way round."""
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = made["model"]["vocab"]
    words = [word for word in vocabulary if word.isalpha()]
    numbers = [vocabulary[word] for word in words]
    vocabulary.update(zip(words, reversed(numbers), strict=True))
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(made))
    return tokenizer


def test_options_of_an_anchor_need_one():
    with pytest.raises(ConfigError, match="--anchor-ratio needs --anchor"):
        config(anchor_ratio=0.5, anchor_weight=2.0)
