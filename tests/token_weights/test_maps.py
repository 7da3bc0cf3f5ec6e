"""Maps of scores to weights against their formulas, number by number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_registry.core.errors import ConfigError
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.core.config import resolve
from pipelines.token_weights.making import weights_of
from pipelines.token_weights.storage import Numbers

PROBABILITIES = [0.0, 0.05, 0.39, 0.41, 0.4999, 0.5, 0.51, 0.93, 1.0]


def made(scores: list[float], **options: object) -> list[float]:
    config = resolve(ScoreTokensConfig, flags={"model": "m", "data": "d", "out": "o", **options})
    found: Numbers = weights_of(config, np.array(scores, dtype=np.float32))
    assert found.dtype == np.float32
    return [float(weight) for weight in found]


def close(values: list[float]) -> object:
    return pytest.approx(values, rel=1e-6, abs=1e-7)


def test_maps_of_probabilities() -> None:
    assert made(PROBABILITIES) == [float(p < 0.5) for p in PROBABILITIES]
    assert made(PROBABILITIES, threshold=0.4) == [float(p < 0.4) for p in PROBABILITIES]
    assert made(PROBABILITIES, map="probability") == close(PROBABILITIES)
    assert made(PROBABILITIES, map="complement") == close([1 - p for p in PROBABILITIES])
    assert made(PROBABILITIES, map="clip") == close([min(max(0.5 - p, 0), 0.1) for p in PROBABILITIES])


def test_log_probabilities_are_mapped_as_probabilities() -> None:
    inner = PROBABILITIES[1:]
    scores = [math.log(p) for p in inner]
    assert made(scores, rule="logprob", threshold=0.4) == [float(p < 0.4) for p in inner]
    assert made(scores, rule="logprob", map="complement") == close([1 - p for p in inner])
    assert made(scores, rule="logprob", map="clip") == close([min(max(0.5 - p, 0), 0.1) for p in inner])


def test_differences_have_a_threshold_in_nats() -> None:
    scores = [-2.0, -0.1, 0.0, 0.3, 4.0]
    ratio = {"rule": "ratio", "against": "b"}
    assert made(scores, **ratio) == [1, 1, 0, 0, 0]
    assert made(scores, **ratio, threshold=1.5) == [1, 1, 1, 1, 0]


@pytest.mark.parametrize(("share", "number"), [(0.01, 1), (0.2, 1), (0.3, 2), (0.5, 3), (1.0, 6)])
def test_top_takes_its_share_of_the_answer(share: float, number: int) -> None:
    scores = [0.4, 0.1, 0.9, 0.1, 0.3, 0.8]
    # Equal scores count in their order.
    lowest, highest = [1, 3, 4, 0, 5, 2], [2, 5, 0, 4, 1, 3]
    for order, places in (("least", lowest), ("most", highest)):
        found = made(scores, map="top", top=share, order=order)
        assert found == [float(place in places[:number]) for place in range(6)]


def test_edited_tokens_have_their_scores_as_weights() -> None:
    assert made([0, 1, 1, 0], rule="edit") == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rule": "ratio"}, "--rule ratio needs --against MODEL"),
        ({"against": "b"}, "--against needs --rule ratio"),
        ({"rule": "ratio", "against": "b", "map": "clip"}, "--map clip takes probabilities"),
        ({"threshold": 0.0}, "--threshold 0 is no probability"),
        ({"threshold": 1.5}, "--threshold 1.5 is no probability"),
        ({"map": "top", "top": 0.0}, "--top"),
        ({"map": "top", "top": 1.01}, "--top"),
        ({"top": 0.2}, "--top needs --map top"),
        ({"order": "most"}, "--order needs --map top"),
        ({"rule": "edit", "map": "top"}, "--map top needs a --rule other than edit"),
        ({"rule": "edit", "zero": 3}, "--zero needs a --rule other than edit"),
        ({"map": "top", "threshold": 0.5}, "--threshold needs --map below"),
        ({"side": ["chosen", "chosen"]}, "--side chosen is given twice"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made([0.1], **options)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems
