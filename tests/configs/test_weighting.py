"""Options that say how much tokens count: their spellings, and what they do not go with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.configs.weighting import RejectedTokens

LEAST: dict[str, Any] = {"model": "m", "data": ["d"], "out": "o"}


@pytest.mark.parametrize(
    ("given", "spelled", "wanted"),
    [
        ("0.1", "0.1", RejectedTokens(0.1)),
        (0.1, "0.1", RejectedTokens(0.1)),
        (" 1e-1 ", "0.1", RejectedTokens(0.1)),
        ("padded:0.10", "padded:0.1", RejectedTokens(0.1, padded=True)),
        ("padded: .25", "padded:0.25", RejectedTokens(0.25, padded=True)),
    ],
)
def test_a_share_has_one_spelling(given: Any, spelled: str, wanted: RejectedTokens) -> None:
    config = TrainDpoConfig(**LEAST, rejected_tokens=given)
    assert config.rejected_tokens == spelled
    assert config.token_filter == wanted
    assert TrainDpoConfig(**LEAST, rejected_tokens=spelled).identity() == config.identity()


@pytest.mark.parametrize(
    "given", ["0", "1", "-0.1", "1.5", "nan", "inf", "padded:", "padded:2", "tenth", "", True, 1, 0]
)
def test_what_is_no_share_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError, match="rejected_tokens"):
        TrainDpoConfig(**LEAST, rejected_tokens=given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": ["d", "e"]}, "one data set, and there are 2 --data"),
        ({"eval_split": 0.1, "drop_too_long": True}, "--eval-split and --drop-too-long together"),
        ({"trainer": {"label_smoothing_factor": 0.1}}, "label_smoothing_factor, whose loss has no weights"),
        ({"trainer": {"average_tokens_across_devices": False}}, "average_tokens_across_devices=false"),
    ],
)
def test_what_weights_do_not_go_with(options: dict[str, Any], said: str) -> None:
    given = {**LEAST, **options}
    TrainSftConfig(**given)
    with pytest.raises(ValidationError, match=said):
        TrainSftConfig(**given, token_weights=Path("w"))


def test_what_a_mean_is_divided_by_needs_weights() -> None:
    with pytest.raises(ValidationError, match="--normalise weight needs --token-weights"):
        TrainSftConfig(**LEAST, normalise="weight")
