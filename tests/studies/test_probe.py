"""The probes of the study of a real model: what they say of states that can be told apart, and of those that cannot."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="probes need scikit-learn, which the extra 'eval' brings")

from benchmarks.studies.smollm2 import probe
from data_registry.testbed import MODEL_DIR


def test_figures_of_scores_are_those_of_counting() -> None:
    draw = np.random.default_rng(3)
    for _ in range(20):
        harmful = draw.random(40) < 0.5
        scores = draw.integers(0, 8, 40).astype(float)
        pairs = [(a, b) for a in scores[harmful] for b in scores[~harmful]]
        assert probe.area(scores, harmful) == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
    ranked = np.arange(200.0)
    # The sixth of 100 harmful ones is the threshold: above or below 50 of the 100 harmless ones.
    for lowest, share in ((6, 0.5), (5, 0.0)):
        harmful = np.r_[np.zeros(50), np.ones(lowest), np.zeros(50), np.ones(100 - lowest)].astype(bool)
        assert probe.taken_for_harmful(ranked, harmful) == share


def test_probes_find_a_direction_and_nothing_where_there_is_none() -> None:
    draw = np.random.default_rng(0)
    harmful = np.arange(120) % 2 == 0
    noise = draw.normal(size=(120, 10))
    kinds = [str(number // 30) for number in range(120)]
    shifted = noise + 4 * harmful[:, None] * np.eye(10)[0]
    assert probe.area(probe.crossed(shifted, harmful, kinds, 0.01), harmful) > 0.99
    assert 0.3 < probe.area(probe.crossed(noise, harmful, kinds, 0.01), harmful) < 0.7


def test_classes_and_the_groups_of_a_class_weigh_the_same() -> None:
    weights = probe.balanced(["a", "a", "a", "b", "c"], np.array([True, True, True, False, False]))
    assert weights.tolist() == pytest.approx([5 / 6, 5 / 6, 5 / 6, 5 / 4, 5 / 4])


def test_states_do_not_depend_on_the_batch() -> None:
    requests = ["add 3 4", "reverse a b c d e f", "what is the kind of a dog"]
    together, alone = probe.states(MODEL_DIR, requests), [probe.states(MODEL_DIR, [one])[0] for one in requests]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)
