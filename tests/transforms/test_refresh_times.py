"""When rows are recomputed: at fixed steps, or as far as they turn, the same after a checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transforms.refresh_times import RefreshEvery, RefreshTimes
from tests.transforms.small_model import make, step

CPU = torch.device("cpu")


def refreshed_at(
    times: RefreshTimes, rates: list[float], degrees: float, start: int = 0, turned: float = 0.0
) -> list[int]:
    """The steps before which rows are refreshed, if they turn by so many degrees for each unit of learning rate."""
    found = []
    for index, rate in enumerate(rates, start=start):
        if times.is_due(index):
            found.append(index)
            times.refreshed(turned, CPU)
            turned = 0.0
        times.count_step(rate)
        turned += degrees * rate
    return found


@pytest.mark.parametrize("every", [0, 3])
def test_fixed_steps_whatever_the_drift(every: RefreshEvery) -> None:
    times = RefreshTimes(every, at_start=False, max_drift=1.0)
    assert refreshed_at(times, [1.0] * 10, 50.0) == ([3, 6, 9] if every else [])
    assert times.count == (3 if every else 0)


def test_intervals_follow_how_fast_rows_turn() -> None:
    # After five steps they have turned by 20 degrees; ten are allowed, that is two and a half steps.
    times = RefreshTimes("auto", at_start=True, max_drift=10.0)
    assert refreshed_at(times, [1.0] * 15, 4.0) == [0, 5, 8, 11, 14]
    assert times.count == 5
    # Where they hardly turn, an interval is at most twice as long as the last.
    slow = RefreshTimes("auto", at_start=False, max_drift=10.0)
    assert refreshed_at(slow, [1.0] * 100, 1e-3) == [5, 15, 35, 75]


def test_the_learning_rate_is_the_measure_of_the_way() -> None:
    steady = refreshed_at(RefreshTimes("auto", at_start=False, max_drift=9.0), [1.0] * 60, 1.0)
    falling = refreshed_at(RefreshTimes("auto", at_start=False, max_drift=9.0), [1.0] * 20 + [0.125] * 40, 1.0)
    assert steady == [5, 14, 23, 32, 41, 50, 59]
    assert falling == [5, 14, 44]
    # Nothing is learned from steps that did not move the weights, as at the very start of a warm-up.
    assert refreshed_at(RefreshTimes("auto", at_start=False, max_drift=9.0), [0.0] * 12, 1.0) == [5, 10]


@settings(max_examples=100)
@given(
    rates=st.lists(st.floats(0, 1e-3), min_size=2, max_size=60),
    degrees=st.floats(0, 1e6),
    drift=st.floats(0.1, 90),
    cut=st.integers(0, 60),
)
def test_a_checkpoint_brings_the_same_times(rates: list[float], degrees: float, drift: float, cut: int) -> None:
    cut = min(cut, len(rates))
    whole = RefreshTimes("auto", at_start=True, max_drift=drift)
    found = refreshed_at(whole, rates, degrees)
    first = RefreshTimes("auto", at_start=True, max_drift=drift)
    begun = refreshed_at(first, rates[:cut], degrees)
    again = RefreshTimes("auto", at_start=True, max_drift=drift)
    again.restore(json.loads(json.dumps(first.state())))
    last = begun[-1] if begun else 0
    turned = 0.0
    for rate in rates[last:cut]:
        turned += degrees * rate
    assert begun + refreshed_at(again, rates[cut:], degrees, start=cut, turned=turned) == found
    assert again.state() == whole.state()


def test_a_run_is_refreshed_when_its_rows_have_turned() -> None:
    model, chain, steps, _ = make(space="update", refresh_every="auto", refresh_at_start=True, max_drift=5.0)
    drifts = []
    for number in range(12):
        if chain.refresh_due(number):
            chain.refresh(number)
            drifts.append((number, chain.get("projection").refresh_figures["drift_degrees"]))
        step(model, chain, steps)
    # The model of the test turns by more than five degrees in five steps, and is then refreshed after fewer.
    assert [number for number, _ in drifts[:2]] == [0, 5]
    assert drifts[1][1] > 5
    assert 5 < drifts[2][0] < 10
